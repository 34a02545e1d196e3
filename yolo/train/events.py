"""TensorBoard's event files, written at once.

PyTorch's ``SummaryWriter`` hands every event to a thread, which a full disk kills unseen; here an
event is in the file when ``write`` returns, or the error is the caller's.
"""

from __future__ import annotations

import io
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

_PREFIX = "events.out.tfevents."
_VERSION = "brain.Event:2"


class EventFile:
    """One more event file in a run's folder.

    Args:
        folder: the run's.
        redone_from: readers forget what older files tell of this step and those after it; None to
            forget nothing.

    Raises:
        OSError: (as ``write``) the file cannot be written.
    """

    def __init__(self, folder: Path, *, redone_from: int | None = None) -> None:
        self.path = folder / f"{_PREFIX}{_next_number(folder):010d}.{socket.gethostname()}"
        self._file = self.path.open("xb", buffering=0)
        self._append(Event(file_version=_VERSION))
        if redone_from is not None:
            start = SessionLog(status=SessionLog.START)
            self._append(Event(step=redone_from, session_log=start))

    def write(self, step: int, summary: Summary) -> None:
        """Append what was measured at a step."""
        self._append(Event(step=step, summary=summary))

    def close(self) -> None:
        self._file.close()

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        rest = memoryview(record.getvalue())
        while rest:  # a disk that fills up takes a part first and refuses the next
            rest = rest[self._file.write(rest) :]


def _next_number(folder: Path) -> int:
    """The time in seconds, but above that of every file there: readers go by it."""
    names = [path.name.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*")]
    numbers = [int(name.partition(".")[0]) for name in names if name[:10].isdecimal()]
    return max([int(time.time()), *(number + 1 for number in numbers)])
