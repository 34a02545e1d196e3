"""What is predicted on: images, folders, patterns, videos, cameras and streams, frame by frame."""

from __future__ import annotations

import glob
import math
import os
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path, PurePath
from urllib.parse import urlsplit

import cv2
import numpy as np

from yolo.data.images import IMAGE_SUFFIXES, decode, read_header
from yolo.errors import UserError

VIDEOS = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov"}
    | {".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""In lower case: which files of a folder are taken for videos."""
STREAMS = frozenset({"http", "https", "rtmp", "rtsp", "rtsps", "tcp", "udp"})

USUAL_FPS = 25.0  # where a camera or a file names none
MAX_FPS = 240.0
STREAM_TIMEOUT_MS = 10_000
CAMERA_DIGITS = 5  # at most, of an index that OpenCV takes
GIVE_UP_AFTER = 3  # tries in a row that give no frame: there is no more

_CAPTURE_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_opening = threading.Lock()  # one thread reads sources while another looks at a result

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # it would report damage beside our sentence


@dataclass(frozen=True, slots=True)
class Frame:
    """An image to predict on, or why there is none."""

    source: Source
    number: int = 0  # of the frame in a video
    image: np.ndarray | None = None  # uint8 (H, W, 3), RGB; None if it is broken
    error: str = ""
    lost: int = 1  # how many frames the error is about


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One image file, one video file or one stream."""

    name: str  # for messages: a path without its root, an address without its password
    address: Path | str | int  # a path, or what OpenCV opens: a camera's index or an address
    stem: str = ""  # what its results are called, without a suffix
    fps: float | None = None  # of a video; None for an image
    frames: int | None = 1  # their number as far as it is known
    live: bool = False  # frames come by themselves, and the newest counts

    def read(self) -> Iterator[Frame]:
        """All frames, broken ones too; ``UserError`` where a camera or stream cannot be opened."""
        if self.fps is not None:
            yield from self._read_video()
            return
        try:
            yield Frame(self, image=decode(Path(str(self.address))))
        except UserError as error:
            yield Frame(self, error=str(error))

    def _read_video(self) -> Iterator[Frame]:
        with _open(self.address) as capture:
            number = failures = 0
            while failures < GIVE_UP_AFTER:
                if not capture.grab():
                    failures += 1
                    continue
                ok, image = capture.retrieve()
                if ok and image is not None and image.ndim == 3:
                    yield Frame(self, number, image=cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
                else:
                    error = f"{self.name}: frame {number} cannot be decoded"
                    yield Frame(self, number, error=error)
                number, failures = number + 1, 0
        expected = self.frames or 0
        lost = expected - number
        if lost > max(1, expected // 100):  # some formats only guess the number from their length
            error = f"{self.name}: {lost:,} of its {expected:,} frames are missing or broken"
            yield Frame(self, number, error=error, lost=lost)


def find_sources(texts: Sequence[str]) -> tuple[list[Source], list[str]]:
    """The sources that the user named, and a sentence for each video that cannot be opened.

    ``texts`` are files, folders, patterns such as ``photos/*.jpg``, indices of cameras, addresses
    such as ``rtsp://...``. A camera or a stream must be the only one, and there.
    """
    sources: list[Source] = []
    broken: list[str] = []
    for text in texts:
        # unlike that of Path, it raises nothing for a name that is too long, as a stream's may be
        exists = os.path.exists(text)  # noqa: PTH110
        is_camera = text.isdecimal() and len(text) <= CAMERA_DIGITS
        if not exists and (is_camera or "://" in text):
            sources.append(_live(text))
            continue
        for path, name in _files(text):
            try:
                sources.append(Source(name, path) if _is_image(path) else _video(path, name))
            except UserError as error:
                broken.append(str(error))
    if any(source.live for source in sources) and len(sources) > 1:
        raise UserError("a camera or a stream never ends: name no other source beside it")
    return _with_unique_names(sources), broken


def _with_unique_names(sources: Sequence[Source]) -> list[Source]:
    """With the whole path for a name where names recur, and a stem of its own for each."""
    names = Counter(source.name for source in sources)
    stems: set[str] = set()
    renamed: list[Source] = []
    for source in sources:
        name = source.name if names[source.name] == 1 else str(source.address)
        first = source.name if source.live else str(PurePath(source.name).with_suffix(""))
        candidates = (first if n == 1 else f"{first}_{n}" for n in count(1))
        stem = next(candidate for candidate in candidates if candidate.casefold() not in stems)
        stems.add(stem.casefold())  # some file systems do not tell A from a
        renamed.append(replace(source, name=name, stem=stem))
    return renamed


def _files(text: str) -> list[tuple[Path, str]]:
    """Files with their names below the folder or pattern that they were found by."""
    path = Path(text)
    if path.is_file():
        return [(path, path.name)]
    if path.is_dir():
        candidates, problem = list(path.iterdir()), "the folder holds no image and no video"
    elif glob.has_magic(text):
        itself = text.replace("[", "[[]")  # of a folder's own name, such as "photos [1]/*.jpg"
        matches = glob.glob(text, recursive=True)  # noqa: PTH207 - Path's takes no absolute one
        matches = matches or glob.glob(itself, recursive=True)  # noqa: PTH207
        candidates, problem = list(map(Path, matches)), "no image and no video fits this pattern"
        if "[" in text:
            problem += "; [ begins a choice of characters, and [[] stands for a [ itself"
    else:
        raise UserError(f"{text}: there is no such file or folder")
    known = VIDEOS.union(IMAGE_SUFFIXES)
    found = sorted(one for one in candidates if one.is_file() and one.suffix.lower() in known)
    if not found:
        raise UserError(f"{text}: {problem}")
    root = os.path.commonpath([one.parent for one in found])
    return [(one, str(one.relative_to(root))) for one in found]


def _is_image(path: Path) -> bool:
    """By the suffix; where that is neither's, for the file was named itself, by the header."""
    suffix = path.suffix.lower()
    if suffix in VIDEOS or suffix in IMAGE_SUFFIXES:
        return suffix in IMAGE_SUFFIXES
    try:
        return read_header(path) is not None
    except UserError:
        return False


def count_frames(path: Path) -> int:
    """Of a video that was written; 0 where it cannot be opened or its last frame is missing."""
    try:
        with _open(path) as capture:
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            capture.set(cv2.CAP_PROP_POS_FRAMES, count - 1)
            return count if capture.grab() else 0
    except UserError:
        return 0


def _video(path: Path, name: str) -> Source:
    with _open(path) as capture:
        frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), _fps(capture)
    known = math.isfinite(frames) and 0 < frames < 1e9
    return Source(name, path, fps=fps, frames=int(frames) if known else None)


def _live(text: str) -> Source:
    """A camera or a stream; opened once here to see that it is there."""
    address: int | str = text
    if "://" not in text:
        name, address = f"camera_{text}", int(text)
    else:
        try:
            parts = urlsplit(text)
        except ValueError:  # what is wrong may be the password
            raise UserError("the address of the stream is no address: correct it") from None
        if parts.scheme not in STREAMS:
            known = ", ".join(sorted(STREAMS))
            raise UserError(f"{parts.scheme}: is no protocol of a stream; known are {known}")
        name = f"{parts.hostname or 'stream'}{parts.path.rstrip('/')}".replace("/", "_")
    with _open(address) as capture:
        return Source(name, address, fps=_fps(capture), frames=None, live=True)


def _fps(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0 < fps <= MAX_FPS else USUAL_FPS


@contextmanager
def _open(address: Path | str | int) -> Generator[cv2.VideoCapture, None, None]:
    """OpenCV's reader; a file may lead FFmpeg into no network."""
    if isinstance(address, int):
        capture = cv2.VideoCapture(address)
        failure = f"camera {address}: cannot be opened; see that it is there and not in use"
    elif isinstance(address, str):
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC]
        pairs = [number for limit in limits for number in (limit, STREAM_TIMEOUT_MS)]
        capture = cv2.VideoCapture(opencv_name(address), cv2.CAP_FFMPEG, pairs)
        host = urlsplit(address).hostname  # the whole address may hold a password
        failure = f"the stream of {host}: cannot be opened; check address, password and network"
    else:
        with _files_only():
            capture = cv2.VideoCapture(opencv_name(address), cv2.CAP_FFMPEG)
        what = "the video" if address.suffix.lower() in VIDEOS else "as image or video, the file"
        failure = f"{address}: {what} cannot be opened: it is damaged or of an unknown format"
    try:
        if not capture.isOpened():
            raise UserError(failure)
        yield capture
    finally:
        capture.release()


def opencv_name(address: Path | str) -> str:
    """What OpenCV opens: a path is absolute, for what stands before a colon would be a protocol.

    It takes UTF-8 alone: a name of other bytes, which Python keeps as surrogates, ends the process.
    """
    name = str(address.absolute()) if isinstance(address, Path) else address
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{address}: no name in UTF-8, as videos must have; rename it") from None
    return name


@contextmanager
def _files_only() -> Generator[None, None, None]:
    """A playlist disguised as a video must not make FFmpeg ask the network."""
    with _opening:
        before = os.environ.get(_CAPTURE_OPTIONS)
        os.environ[_CAPTURE_OPTIONS] = "protocol_whitelist;file"
        try:
            yield
        finally:
            del os.environ[_CAPTURE_OPTIONS]
            if before is not None:
                os.environ[_CAPTURE_OPTIONS] = before
