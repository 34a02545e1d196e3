"""What can be predicted on, and the thread that prefetches."""

from __future__ import annotations

import functools
import http.server
import itertools
import os
import socket
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolo.apps.predict import sources
from yolo.apps.predict.run import Prefetch
from yolo.apps.predict.sources import find_sources
from yolo.errors import UserError


def write_video(path: Path, frames: int = 12, fps: float = 10) -> Path:
    """Frame i has the grey value 10 i, and noise in its upper half."""
    noise = np.random.default_rng(0)
    fourcc = cv2.VideoWriter.fourcc(*("FLV1" if path.suffix == ".flv" else "mp4v"))
    writer = cv2.VideoWriter(str(path), fourcc, fps, (64, 48))
    for i in range(frames):
        frame = np.full((48, 64, 3), 10 * i % 250, np.uint8)
        frame[:24] = noise.integers(0, 256, (24, 64, 3))
        writer.write(frame)
    writer.release()
    return path


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 30, 3), 99, np.uint8))
    return path


def test_folders_patterns_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.jpg", "a/2.PNG", "a/b/1.jpg", "[odd].jpg"):
        write_image(Path(name))
    Path("a/notes.txt").write_text("text")
    write_video(Path("a/1.mp4"))

    def names(*texts):
        return [(source.name, source.stem) for source in find_sources(texts)[0]]

    assert names("a") == [("1.jpg", "1"), ("1.mp4", "1_2"), ("2.PNG", "2")]
    assert names("a/**/*.jpg") == [("1.jpg", "1"), ("b/1.jpg", "b/1")]
    assert names("**/*.PNG", "[odd].jpg") == [("2.PNG", "2"), ("[odd].jpg", "[odd]")]
    assert names("a/1.jpg", "a/b/1.jpg") == [("a/1.jpg", "1"), ("a/b/1.jpg", "1_2")]
    for name in ("B/x.jpg", "B/X.png"):
        write_image(Path(name))
    assert names("B") == [("X.png", "X"), ("x.jpg", "x_2")]
    write_image(Path("seen [1]/x.jpg"))  # a name that is no pattern
    assert names("seen [1]/*.jpg") == names("seen [[]1]/*.jpg") == [("x.jpg", "x")]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["none.jpg"], "none.jpg: there is no such file or folder"),
        (["none/*.jpg"], "no image and no video fits this pattern"),
        (["none [2]/*.jpg"], r"fits this pattern; \[ begins a choice of characters, and \[\[\]"),
        (["."], "the folder holds no image and no video"),
        (["gopher://somewhere/film"], "gopher: is no protocol of a stream"),
        (["99"], "camera 99: cannot be opened"),
        (["9" * 50], "there is no such file or folder"),
        (["rtsp://[::1/live"], "the address of the stream is no address: correct it"),
    ],
)
def test_nothing_there(texts, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        find_sources(texts)


@pytest.mark.parametrize("path", ["live", "x" * 300])  # no file has so long a name
def test_an_address_keeps_its_password(path):
    with pytest.raises(UserError) as caught:
        find_sources([f"rtsp://me:secret@127.0.0.1:1/{path}"])
    assert "the stream of 127.0.0.1: cannot be opened" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_frames_of_a_video(tmp_path):
    ((source,), broken) = find_sources([str(write_video(tmp_path / "a.mp4"))])
    assert (source.fps, source.frames, source.live, broken) == (10, 12, False, [])
    frames = list(source.read())
    assert [frame.number for frame in frames] == list(range(12))
    for frame in frames:
        assert abs(float(frame.image[32:].mean()) - 10 * frame.number) < 5


VIDEO_NAMES = ["12:30:00.mp4", "subfile,a:b.avi", "pipe:1.mkv", "100%d.mov", "-.mp4"]


@pytest.mark.parametrize("name", VIDEO_NAMES)
def test_a_name_that_ffmpeg_would_take_for_a_protocol(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / name)
    for text in (name, "."):
        (source,), broken = find_sources([text])
        assert (source.name, source.frames, broken) == (name, 12, [])
        assert len(list(source.read())) == 12


def test_a_name_that_is_no_utf_8(tmp_path):
    """OpenCV would end the process."""
    write_video(tmp_path / "a.mp4").rename(tmp_path / "\udce9.mp4")
    write_image(tmp_path / "a.png").rename(tmp_path / "\udce9.png")
    (source,), (problem,) = find_sources([str(tmp_path)])
    assert next(source.read()).image is not None
    assert problem.endswith(r"/\udce9.mp4: no name in UTF-8, as videos must have; rename it")
    with pytest.raises(UserError, match="no name in UTF-8"):
        find_sources(["rtsp://127.0.0.1:1/\udce9"])


@pytest.mark.parametrize(
    "suffix", ["ts", "3gp", "flv", "MTS", "m2ts", "asf", "vob", "F4V", "3g2", "dat", "video", ""]
)
def test_a_video_by_its_suffix_or_named_by_its_content(suffix, tmp_path):
    """A suffix that is neither an image's nor a video's counts only where the file is named."""
    path = tmp_path / f"film.{suffix}".rstrip(".")
    way = {"F4V": "mp4", "dat": "avi", "video": "avi", "": "avi"}.get(suffix, suffix.lower())
    write_video(tmp_path / f"film.{way}").rename(path)
    (source,), broken = find_sources([str(path)])
    assert source.fps == 10 and len(list(source.read())) >= 11 and not broken
    if way != "avi":
        assert [source.name for source in find_sources([str(tmp_path)])[0]] == [path.name]


def test_an_image_without_a_suffix_and_what_is_neither(tmp_path):
    write_image(tmp_path / "a.png").rename(tmp_path / "a")
    (tmp_path / "notes.txt").write_text("text")
    (source,), broken = find_sources([str(tmp_path / "a"), str(tmp_path / "notes.txt")])
    (frame,) = source.read()
    assert source.fps is None and frame.image.shape == (20, 30, 3)
    assert broken == [
        f"{tmp_path / 'notes.txt'}: as image or video, the file cannot be opened: it is damaged or "
        "of an unknown format"
    ]


def test_a_video_that_ends_early_and_one_that_is_none(tmp_path):
    whole = write_video(tmp_path / "whole.avi", frames=40)
    content = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    sources, broken = find_sources([str(tmp_path)])
    assert [source.name for source in sources] == ["cut.avi", "whole.avi"]
    problem = "the video cannot be opened: it is damaged or of an unknown format"
    assert [sentence.split(": ", 1)[1] for sentence in broken] == [problem] * 2
    *frames, last = sources[0].read()
    assert 5 < len(frames) < 40 and last.image is None
    assert len(frames) + last.lost == 40
    assert last.error == f"cut.avi: {last.lost} of its 40 frames are missing or broken"


def test_a_broken_image_is_a_frame_with_an_error(tmp_path):
    (tmp_path / "empty.jpg").touch()
    ((source,), _) = find_sources([str(tmp_path / "empty.jpg")])
    (frame,) = source.read()
    assert frame.image is None and "is an empty file" in frame.error


PLAYLIST = (
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{}/a.ts\n#EXT-X-ENDLIST\n"
)
SESSION = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {} RTP/AVP 96\n"
FILES = {
    "playlist.mp4": PLAYLIST,
    "playlist.m3u8": PLAYLIST,
    "list.mp4": "ffconcat version 1.0\nfile http://127.0.0.1:{}/a.mp4\n",
    "session.mp4": SESSION,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_leads_to_no_network(name, tmp_path):
    """A listening socket sees nobody, whatever a file holds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        path = tmp_path / name
        path.write_text(FILES[name].format(server.getsockname()[1]))
        start = time.monotonic()
        sources, _ = find_sources([str(path)])
        assert all(frame.image is None for source in sources for frame in source.read())
        assert time.monotonic() - start < 5
        with pytest.raises(TimeoutError):
            server.accept()


def test_no_thread_opens_a_file_while_another_ends_the_guard(tmp_path):
    """A result is looked at while the next source is opened; both have the one environment."""
    path, opened = write_video(tmp_path / "a.mp4"), []
    with sources._files_only():
        thread = threading.Thread(target=lambda: opened.extend(find_sources([str(path)])[0]))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and not opened
    thread.join(10)
    assert len(opened) == 1 and "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


def test_a_stream_from_the_network_that_the_user_named(tmp_path):
    """An HTTP address is read, and Ctrl-C aside its end is the end."""
    write_video(tmp_path / "film.mp4")
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/film.mp4"
        ((source,), _) = find_sources([address])
        assert (source.name, source.live) == ("127.0.0.1_film.mp4", True)
        assert len(list(source.read())) == 12
        with pytest.raises(UserError, match="never ends: name no other source"):
            find_sources([address, address])
        server.shutdown()


def test_prefetching_keeps_order_and_passes_errors_on():
    def items():
        yield from range(5)
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):
        for item in Prefetch(items(), depth=2):
            seen.append(item)
    assert seen == list(range(5))
    batches = list(Prefetch((i for i in range(20)), depth=50).batches(8))
    assert list(itertools.chain(*batches)) == list(range(20))
    assert max(map(len, batches)) <= 8


def test_prefetching_waits_or_takes_the_newest():
    made = []

    def items():
        for i in range(50):
            made.append(i)
            yield i

    waiting = Prefetch(items(), depth=2)
    time.sleep(0.1)
    assert len(made) <= 4
    waiting.close()
    made.clear()
    newest = Prefetch(items(), depth=1, newest_only=True)
    newest._thread.join(0.5)
    assert made == list(range(50))
    assert list(newest) == [49]


def test_closing_a_prefetch_closes_what_it_reads_and_frees_who_waits():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    prefetch = Prefetch(items(), depth=1)
    prefetch.close()
    assert closed.is_set()
    assert list(prefetch) == []


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Not into the test's output."""
