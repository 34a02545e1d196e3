"""From sources to results: reading, the network and writing overlap in three threads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from yolo.apps.predict.ahead import Ahead
from yolo.apps.predict.predictor import Prediction, Predictor, Prepared
from yolo.apps.predict.results import Results
from yolo.apps.predict.sources import Frame, Source

READ_AHEAD = 8
WRITTEN_BEHIND = 8
"""Frames that wait between two threads, at least: a camera's wait not at all."""

PLAIN_LINE_EVERY_SECONDS = 10.0

Log = Callable[[str], None]
"""Prints lines."""


@dataclass
class Tally:
    """What came of it.

    Attributes:
        images: read and predicted on.
        boxes: found.
        skipped: broken images and frames.
        seconds: from the first to the last frame; the model was loaded before.
        network_seconds: of these, with the network and the suppression at work.
        interrupted: by Ctrl-C.
        told: sources of which a broken frame was named.
    """

    images: int = 0
    boxes: int = 0
    skipped: int = 0
    seconds: float = 0.0
    network_seconds: float = 0.0
    interrupted: bool = False
    told: set[str] = field(default_factory=set)

    def line(self) -> str:
        """A summary."""
        skipped = f", {self.skipped:,} broken and skipped" if self.skipped else ""
        speed = self.images / max(self.seconds, 1e-9)
        busy = self.network_seconds / max(self.seconds, 1e-9)
        return (
            f"{self.images:,} images, {self.boxes:,} boxes{skipped}; {self.seconds:.1f} s, "
            f"{speed:.1f} images/s, network busy {busy:.0%} of the time"
        )


def predict_sources(
    predictor: Predictor, sources: Sequence[Source], results: Sequence[Results], *, log: Log
) -> Tally:
    """Predict on every frame and hand it to the results, which are finished in any case.

    Args:
        predictor: finds the boxes.
        sources: one after the other.
        results: what writes.
        say: is told of what is broken: of the first broken frame of each source.

    Raises:
        UserError: something cannot be written, or a stream cannot be opened.
    """
    tally = Tally()
    live = any(source.live for source in sources)
    batch_size = 1 if live else predictor.network.batch_size
    start = time.perf_counter()
    read = Ahead(
        _read(predictor, sources),
        depth=1 if live else max(READ_AHEAD, 2 * batch_size),
        newest_only=live,
    )
    found = Ahead(_find(predictor, read, batch_size, tally), depth=1 if live else WRITTEN_BEHIND)
    progress = _Progress(sources, log)
    try:
        for frame, prediction in found:
            if prediction is None:
                _skip(frame, tally, progress.message)
            else:
                tally.images += 1
                tally.boxes += len(prediction.detections)
                for result in results:
                    result.add(frame, prediction)
            progress.advance(1 if prediction else frame.lost)
    except KeyboardInterrupt:  # the usual end of a camera
        tally.interrupted = True
    finally:
        read.close()
        found.close()
        progress.close()
        _close_all(results)
        tally.seconds = time.perf_counter() - start
    return tally


def _read(
    predictor: Predictor, sources: Sequence[Source]
) -> Generator[tuple[Frame, Prepared | None], None, None]:
    """Frames, letterboxed unless they are broken."""
    for source in sources:
        for frame in source.read():
            yield frame, None if frame.image is None else predictor.prepare(frame.image)


def _find(
    predictor: Predictor,
    read: Ahead[tuple[Frame, Prepared | None]],
    batch_size: int,
    tally: Tally,
) -> Generator[tuple[Frame, Prediction | None], None, None]:
    """Frames with what was found in them, unless they are broken."""
    for batch in read.batches(batch_size):
        prepared = [one for _, one in batch if one is not None]
        start = time.perf_counter()
        found = iter(predictor.find(prepared) if prepared else [])
        tally.network_seconds += time.perf_counter() - start
        for frame, one in batch:
            yield frame, None if one is None else next(found)


def _skip(frame: Frame, tally: Tally, log: Log) -> None:
    tally.skipped += frame.lost
    if frame.source.name not in tally.told:
        tally.told.add(frame.source.name)
        log(f"skipped: {frame.error}")


def _close_all(results: Iterable[Results]) -> None:
    """Finish every result, also where one of them fails."""
    errors: list[Exception] = []
    for result in results:
        try:
            result.close()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


class _Progress:
    """A bar in a terminal; elsewhere a plain line now and then."""

    def __init__(self, sources: Sequence[Source], log: Log) -> None:
        counts = [source.frames for source in sources]
        self._total = None if None in counts else sum(filter(None, counts))
        self._say, self._done = log, 0
        self._next_line = time.monotonic() + PLAIN_LINE_EVERY_SECONDS
        self._bar = (
            tqdm(total=self._total, unit="image", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def advance(self, frames: int) -> None:
        self._done += frames
        if self._bar is not None:
            self._bar.update(frames)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_LINE_EVERY_SECONDS
            self.message(f"{self._done:,} of {self._total:,}" if self._total else f"{self._done:,}")

    def message(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        self._say(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
