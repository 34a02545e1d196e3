import errno
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from yolo.errors import UserError
from yolo.files import (
    atomic_folder,
    atomic_path,
    atomic_write,
    locked,
    open_no_link,
    write_or_refuse,
)


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "file"
    atomic_write(path, b"first")
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "below", tmp_path / "folder", "/"):
        with pytest.raises(OSError):
            atomic_write(type(tmp_path)(place), b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_appears_once_it_is_whole(tmp_path, sync):
    path = tmp_path / "video.mp4"
    with atomic_path(path, sync=sync) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.suffix == ".mp4" and not path.exists()
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError), atomic_path(path, sync=sync) as temporary:
        temporary.write_bytes(b"half")
        raise ValueError
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_once_it_is_whole(tmp_path):
    for fails in (True, False):
        with suppress(ValueError), atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "file").touch()
            if fails:
                raise ValueError
        assert [path.name for path in tmp_path.iterdir()] == ([] if fails else ["folder"])


LEFT = {
    "file": lambda path: path.write_bytes(b"left by a kill"),
    "folder": lambda path: (path / "below").mkdir(parents=True),
    "link": lambda path: path.symlink_to("others"),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("leave", LEFT.values(), ids=LEFT)
@pytest.mark.parametrize("atomic", [atomic_path, atomic_folder])
def test_whatever_has_the_temporary_name_is_replaced_and_never_followed(tmp_path, atomic, leave):
    (tmp_path / "others").write_bytes(b"others")
    leave(tmp_path / "new.tmp")
    with atomic(tmp_path / "new", temporary_name="new.tmp") as temporary:
        mode = temporary.lstat().st_mode
        assert stat.S_ISREG(mode) if atomic is atomic_path else stat.S_ISDIR(mode)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "others"}
    assert (tmp_path / "others").read_bytes() == b"others"


def test_a_file_of_ours_replaces_a_link_and_a_named_one_is_written_through_it(tmp_path):
    (tmp_path / "others").write_bytes(b"others")
    (tmp_path / "deep").mkdir()
    for name, target in (("one", "two"), ("two", "others"), ("first", "deep/new.json")):
        (tmp_path / name).symlink_to(target)
    atomic_write(tmp_path / "one", b"ours")
    assert not (tmp_path / "one").is_symlink() and (tmp_path / "others").read_bytes() == b"others"
    for name in ("two", "first"):
        write_or_refuse("the json", tmp_path / name, b"named", remedy="")
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == b"named"
    assert (tmp_path / "others").read_bytes() == b"named"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["new.json"]


def test_devices_and_pipes_are_written_into_and_stay(tmp_path, capfd):
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "full").symlink_to("/dev/full")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for place in (tmp_path / "null", tmp_path / "pipe", Path("/dev/stdout"), Path("/dev/fd/1")):
        write_or_refuse("the json", place, b"content\n", remedy="")
    assert os.read(reader, 99) == b"content\n" and capfd.readouterr().out == "content\n" * 2
    with pytest.raises(UserError, match=r"the json cannot be written .No space left on device"):
        write_or_refuse("the json", tmp_path / "full", b"content", remedy="")
    assert all((tmp_path / name).is_symlink() for name in ("null", "full"))
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_only_a_file_of_ours_is_opened_to_append(tmp_path):
    for name, leave in LEFT.items():
        leave(tmp_path / name)
    (tmp_path / "others").write_bytes(b"others")
    for name in ("link", "link to nothing", "pipe"):
        with pytest.raises(OSError, match="it is a link, a pipe or a device"):
            open_no_link(tmp_path / name, os.O_WRONLY | os.O_APPEND)
    for name, size in (("file", 14), ("new", 0)):
        descriptor = open_no_link(tmp_path / name, os.O_WRONLY | os.O_APPEND)
        assert os.fstat(descriptor).st_size == size
        os.close(descriptor)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("name", "is_loud"),
    [
        *((name, False) for name in ("EINVAL", "ENOSYS", "EOPNOTSUPP", "EBADF", "EACCES")),
        *((name, True) for name in ("EIO", "ENOSPC", "EDQUOT")),
    ],
)
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_folder_that_cannot_be_put_on_the_disk(tmp_path, monkeypatch, call, name, is_loud):
    """The file itself is, so that nothing but EIO and a lack of room is a failure."""
    code, original, synced = getattr(errno, name), getattr(os, call), []

    def refuse(what, *more):
        is_folder = isinstance(what, int) and stat.S_ISDIR(os.fstat(what).st_mode)
        if is_folder or what == tmp_path:
            raise OSError(code, os.strerror(code))
        synced.append(what)
        return original(what, *more)

    monkeypatch.setattr(os, call, refuse)
    if is_loud:
        with (
            pytest.raises(OSError, match=os.strerror(code)),
            atomic_path(tmp_path / "file", sync=True),
        ):
            pass
    else:
        with atomic_path(tmp_path / "file", sync=True) as temporary:
            temporary.write_bytes(b"new")
        assert (tmp_path / "file").read_bytes() == b"new"
    assert synced


def test_one_at_a_time(tmp_path):
    """Threads stand for processes: a lock belongs to who opened the file."""
    lock, inside, most = tmp_path / "lock", [], []

    def work():
        for _ in range(20):
            with locked(lock, waiting=lambda: None):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == [1] * 80


def test_who_waits_says_so_once(tmp_path):
    told = []
    waits = threading.Event()

    def second():
        with locked(tmp_path / "lock", waiting=lambda: (told.append("waits"), waits.set())):
            told.append("inside")

    with locked(tmp_path / "lock", waiting=lambda: told.append("never")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        assert told == ["waits"]
    thread.join()
    assert told == ["waits", "inside"]


def test_a_lock_that_was_left_behind_keeps_nobody_out(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / "file").touch()
    with locked(tmp_path / "lock", waiting=lambda: pytest.fail("nobody is inside")):
        pass
    with pytest.raises(OSError), locked(tmp_path / "file" / "lock", waiting=lambda: None):
        pass
