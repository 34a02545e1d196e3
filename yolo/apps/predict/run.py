"""From sources to results: reading, the network and writing overlap in three threads."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tqdm import tqdm

from yolo.apps.predict.prediction import Prediction
from yolo.apps.predict.predictor import Predictor, Prepared
from yolo.apps.predict.results import Results
from yolo.apps.predict.sources import Frame, Source

PREFETCHED = 8  # frames that wait between two threads, at least: a camera's wait not at all
LOOK_AGAIN_SECONDS = 0.1  # a thread's wait at a time: Windows lets Ctrl-C through only in between
PLAIN_LINE_EVERY_SECONDS = 10.0

Log = Callable[[str], None]

T = TypeVar("T")


@dataclass
class Tally:
    """How much was predicted, and how fast."""

    images: int = 0
    boxes: int = 0
    skipped: int = 0  # broken images and frames
    seconds: float = 0.0  # from the first to the last frame; the model was loaded before
    network_seconds: float = 0.0  # of these, with the network and the suppression at work
    interrupted: bool = False  # by Ctrl-C

    def line(self) -> str:
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

    ``log`` gets a line for the first broken frame of each source.
    """
    tally, reported = Tally(), set[str]()
    live = any(source.live for source in sources)
    batch_size = 1 if live else predictor.network.batch_size
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:  # all are closed, also where one fails: the last first
        for result in reversed(results):
            stack.callback(result.close)
        progress = _Progress(sources, log)
        stack.enter_context(progress.bar)
        depth = 1 if live else max(PREFETCHED, 2 * batch_size)
        prepared = (
            (frame, None if frame.image is None else predictor.prepare(frame.image))
            for source in sources
            for frame in source.read()
        )
        read = Prefetch(prepared, depth=depth, newest_only=live)
        found = Prefetch(_find(predictor, read, batch_size, tally), depth=1 if live else PREFETCHED)
        stack.callback(found.close)
        stack.callback(read.close)
        try:
            for frame, prediction in found:
                if prediction is not None:
                    tally.images += 1
                    tally.boxes += len(prediction.detections)
                    for result in results:
                        result.add(frame, prediction)
                    progress.advance(1)
                    continue
                tally.skipped += frame.lost
                progress.advance(frame.lost)
                if frame.source.name not in reported:
                    reported.add(frame.source.name)
                    progress.bar.clear()
                    log(f"skipped: {frame.error}")
        except KeyboardInterrupt:  # the usual end of a camera
            tally.interrupted = True
    tally.seconds = time.perf_counter() - start
    return tally


class Prefetch(Generic[T]):
    """Make items in a thread, so that they are ready when they are wanted.

    At most ``depth`` items wait. With ``newest_only`` an item that finds no room takes the place of
    the one that has waited longest; otherwise it waits for room. What the generator raises is
    raised where items are taken.
    """

    def __init__(
        self, items: Generator[T, None, None], *, depth: int, newest_only: bool = False
    ) -> None:
        self._items, self._depth, self._newest_only = items, depth, newest_only
        self._ready: deque[T] = deque(maxlen=depth)
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        for batch in self.batches(1):
            yield from batch

    def batches(self, most: int) -> Iterator[list[T]]:
        """The items that are ready, at least one, at most so many; in order until the end."""
        while True:
            with self._changed:
                self._wait(lambda: bool(self._ready) or self._ended)
                if self._closed or not self._ready:
                    break
                batch = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
                self._changed.notify_all()
            yield batch
        if self._error is not None and not self._closed:
            raise self._error

    def close(self) -> None:
        """End the thread; whoever waits for an item sees the end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    if not self._newest_only:
                        self._wait(lambda: len(self._ready) < self._depth)
                    if self._closed:
                        break
                    self._ready.append(item)
                    self._changed.notify_all()
            self._items.close()
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool]) -> None:
        while not self._closed and not ready():
            self._changed.wait(LOOK_AGAIN_SECONDS)


def _find(
    predictor: Predictor,
    read: Prefetch[tuple[Frame, Prepared | None]],
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


class _Progress:
    """A bar in a terminal; elsewhere a plain line now and then."""

    def __init__(self, sources: Sequence[Source], log: Log) -> None:
        counts = [source.frames for source in sources]
        self._total = None if None in counts else sum(filter(None, counts))
        self._log, self._done = log, 0
        self._next_line = time.monotonic() + PLAIN_LINE_EVERY_SECONDS
        shown = sys.stderr.isatty()
        self.bar = tqdm(total=self._total, unit="image", dynamic_ncols=True, disable=not shown)

    def advance(self, frames: int) -> None:
        self._done += frames
        self.bar.update(frames)
        if self.bar.disable and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_LINE_EVERY_SECONDS
            self._log(f"{self._done:,} of {self._total:,}" if self._total else f"{self._done:,}")
