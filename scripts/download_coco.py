"""Fetches COCO 2017 (images and annotations) and unpacks it where the COCO configs look for it.

What is there already is not fetched again, and an interrupted download goes on where it stopped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from yolo.downloads import download, readable_size, remote_size
from yolo.errors import UserError

BASE_URL = "http://images.cocodataset.org"


class Archive(NamedTuple):
    """A zip of the data set; `growth` is the size of its content over its own, about."""

    url_path: str
    growth: float

    @property
    def name(self) -> str:
        return self.url_path.rpartition("/")[2]


ARCHIVES = {
    "annotations": Archive("annotations/annotations_trainval2017.zip", 3.5),
    "train": Archive("zips/train2017.zip", 1.02),
    "val": Archive("zips/val2017.zip", 1.02),
    "test": Archive("zips/test2017.zip", 1.02),
}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fetches and unpacks COCO 2017.")
    add = parser.add_argument
    add("--root", type=Path, default=REPOSITORY / "data/coco", help="folder (default: data/coco)")
    add(
        "--splits",
        nargs="+",
        choices=list(ARCHIVES),
        default=["train", "val"],
        metavar="SPLIT",
        help="train (19 GB), val (0.8 GB), test (6.6 GB; no truth), annotations (0.25 GB; "
        "always fetched too); default: train val",
    )
    add("--delete-zips", action="store_true", help="remove each zip once it is unpacked")
    add("--base-url", default=BASE_URL, help=f"server or mirror (default: {BASE_URL})")
    return parser.parse_args(argv)


def pending_archives(root: Path, splits: Sequence[str]) -> list[Archive]:
    """What is still to be unpacked, annotations first: they are small and tell early of trouble."""
    wanted = [archive for name, archive in ARCHIVES.items() if name in {"annotations", *splits}]
    return [archive for archive in wanted if not done_marker(root, archive).exists()]


def done_marker(root: Path, archive: Archive) -> Path:
    return root / f".{archive.name}.unpacked"


def check_space(root: Path, sizes: dict[Archive, int], *, delete_zips: bool) -> None:
    """Refuses to start what the disk cannot hold: what is missing of the zips, and their content.

    Raises:
        UserError: too little space.
    """
    missing = [max(0, size - arrived(root / archive.name)) for archive, size in sizes.items()]
    zips = max(missing) if delete_zips else sum(missing)
    needed = zips + sum(size * archive.growth for archive, size in sizes.items())
    free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free
    print(f"{readable_size(sum(missing))} to fetch, {readable_size(needed)} of disk needed")
    if needed > free:
        raise UserError(
            f"{root} has {readable_size(free)} free where {readable_size(needed)} are needed: "
            "make room, choose another --root, fewer --splits, or --delete-zips"
        )


def arrived(zip_path: Path) -> int:
    """Bytes of a zip that are on the disk, whole or in part."""
    candidates = (zip_path, zip_path.with_name(f"{zip_path.name}.part"))
    return next((path.stat().st_size for path in candidates if path.exists()), 0)


def extract(zip_path: Path, root: Path) -> int:
    """Unpacks what is not there in its full size; returns the number of files in the archive.

    Raises:
        UserError: a broken archive, a member that leads out of the folder, a full disk.
    """
    try:
        with zipfile.ZipFile(zip_path) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            for member in members:
                target = (root / member.filename).resolve()
                if not target.is_relative_to(root.resolve()):
                    raise UserError(f"{zip_path} holds {member.filename!r}, which leads out of it")
                if not (target.is_file() and target.stat().st_size == member.file_size):
                    opened.extract(member, root)
    except (zipfile.BadZipFile, EOFError) as problem:
        raise UserError(f"{zip_path} is broken ({problem}); remove it and start again") from problem
    except OSError as problem:
        raise UserError(f"cannot unpack {zip_path}: {problem}") from problem
    return len(members)


def fetch_coco(arguments: argparse.Namespace) -> None:
    root = arguments.root
    base = arguments.base_url.rstrip("/")
    pending = pending_archives(root, arguments.splits)
    sizes = {archive: remote_size(f"{base}/{archive.url_path}") or 0 for archive in pending}
    if pending:
        check_space(root, sizes, delete_zips=arguments.delete_zips)
    for archive in pending:
        zip_path = root / archive.name
        download(f"{base}/{archive.url_path}", zip_path, size=sizes[archive] or None)
        print(f"unpacking {zip_path}", flush=True)
        print(f"{archive.name}: {extract(zip_path, root)} files")
        done_marker(root, archive).touch()
        if arguments.delete_zips:
            zip_path.unlink()
    print(f"COCO 2017 is ready in {root}")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        fetch_coco(parse_arguments(argv))
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; start again to go on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
