import threading

import pytest

from yolo.files import alone, write_whole


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "file"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "below", tmp_path / "folder", "/"):
        with pytest.raises(OSError):
            write_whole(type(tmp_path)(place), b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
    assert (tmp_path / "file").read_bytes() == b"old"


def test_one_at_a_time(tmp_path):
    """Threads stand for processes: a lock belongs to who opened the file."""
    lock, inside, most = tmp_path / "lock", [], []

    def work():
        for _ in range(20):
            with alone(lock, waiting=lambda: None):
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
        with alone(tmp_path / "lock", waiting=lambda: (told.append("waits"), waits.set())):
            told.append("inside")

    with alone(tmp_path / "lock", waiting=lambda: told.append("never")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        assert told == ["waits"]
    thread.join()
    assert told == ["waits", "inside"]


def test_a_lock_that_was_left_behind_keeps_nobody_out(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / "file").touch()
    with alone(tmp_path / "lock", waiting=lambda: pytest.fail("nobody is inside")):
        pass
    with pytest.raises(OSError), alone(tmp_path / "file" / "lock", waiting=lambda: None):
        pass
