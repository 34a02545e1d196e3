"""Work done in a thread before its results are wanted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

LOOK_AGAIN_SECONDS = 0.1
"""How long a thread waits before it looks whether anybody still wants its work."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    """Behind the last item.

    Attributes:
        error: what ended it early.
    """

    error: BaseException | None = None


class Ahead(Generic[T]):
    """Make items in a thread, so that they are ready when they are wanted.

    Args:
        items: is run through in the thread; what it raises is raised where items are taken.
        depth: how many wait at most.
        newest_only: an item that finds no room takes the place of the one that has waited longest;
            otherwise it waits for room.
    """

    def __init__(
        self, items: Generator[T, None, None], *, depth: int, newest_only: bool = False
    ) -> None:
        self._items, self._newest_only = items, newest_only
        self._waiting: queue.Queue[T | _End] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        for (item,) in self.batches(1):
            yield item

    def batches(self, most: int) -> Iterator[list[T]]:
        """What is ready, at least one item, at most so many; in order until the end."""
        while True:
            item = self._get()
            batch: list[T] = []
            while not isinstance(item, _End):
                batch.append(item)
                if len(batch) == most or self._waiting.empty():
                    break
                item = self._get()
            if batch:
                yield batch
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return

    def close(self) -> None:
        """End the thread; whoever waits for an item sees the end."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                self._put(item)
                if self._closed.is_set():
                    break
            self._items.close()
        except BaseException as error:
            self._put(_End(error))
        else:
            self._put(_End())

    def _put(self, item: T | _End) -> None:
        replaces = self._newest_only and not isinstance(item, _End)
        while not self._closed.is_set():
            try:
                self._waiting.put(item, block=not replaces, timeout=LOOK_AGAIN_SECONDS)
                return
            except queue.Full:
                if replaces:
                    self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self._waiting.get_nowait()
        except queue.Empty:
            return  # somebody took it in the meantime

    def _get(self) -> T | _End:
        while not self._closed.is_set():
            try:
                return self._waiting.get(timeout=LOOK_AGAIN_SECONDS)
            except queue.Empty:
                continue
        return _End()
