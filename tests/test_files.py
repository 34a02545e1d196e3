import threading
from contextlib import suppress

import pytest

from yolo.files import atomic_path, atomic_write, locked


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
        with suppress(ValueError), atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / "file").touch()
            if fails:
                raise ValueError
        assert [path.name for path in tmp_path.iterdir()] == ([] if fails else ["folder"])


def test_a_name_of_its_own_is_used_again(tmp_path):
    (tmp_path / "file.tmp").write_bytes(b"left by a kill")
    with atomic_path(tmp_path / "file", temporary_name="file.tmp") as temporary:
        temporary.write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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
