"""Images that cannot be used, and whether a run would bear with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolo.apps.preflight.flight import Split
from yolo.apps.report.page import Cell, Html, table
from yolo.config import Config

TOLD = 5
"""On the terminal; page and json name all."""


@dataclass(frozen=True, slots=True)
class BadImage:
    """A file, and the sentence on what is wrong with it."""

    split: Split
    path: Path
    reason: str

    def plain(self) -> dict[str, str]:
        """For the json."""
        return {"split": self.split, "file": str(self.path), "reason": self.reason}


def fault_of_images(
    config: Config, bad: Sequence[BadImage], looked_at: Mapping[Split, int]
) -> str | None:
    """The sentence on bad images, unless so few are to be skipped.

    Args:
        config: says what becomes of them.
        bad: of all data sets.
        looked_at: images of each data set, the bad ones among them.
    """
    if not bad:
        return None
    shares = [
        sum(one.split == split for one in bad) / max(count, 1) for split, count in looked_at.items()
    ]
    if config.data.on_error == "skip" and max(shares) <= config.data.max_bad_share:
        return None
    more = len(bad) - 1
    likewise = f" ({more:,} more images are at fault)" if more else ""
    return f"data.{bad[0].split}: {bad[0].reason.rstrip('.')}{likewise}."


def warnings_of_images(bad: Sequence[BadImage]) -> list[str]:
    """The first of them, for the terminal."""
    lines = [f"data.{one.split}: {one.reason}" for one in bad[:TOLD]]
    more = len(bad) - TOLD
    return [*lines, f"{more:,} more images are at fault"] if more > 0 else lines


def table_of_images(bad: Sequence[BadImage]) -> list[Html]:
    """All of them, for the page; nothing where there is none."""
    rows: list[list[Cell]] = [[one.split, str(one.path), one.reason] for one in bad]
    return [table(["set", "file", "reason"], rows, caption="images at fault")] if rows else []
