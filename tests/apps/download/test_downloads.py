"""The downloader and the scripts that use it against a server on loopback."""

import errno
import io
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from scripts import download_coco, download_voc, download_weights
from yolo.apps.download import archives, downloads
from yolo.apps.download.downloads import download, readable_size, remote_size
from yolo.config import REPOSITORY_ROOT
from yolo.errors import UserError

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Site:
    """What the server holds and how it misbehaves."""

    files: dict[str, bytes] = field(default_factory=lambda: {"/a.bin": CONTENT})
    version: str = '"1"'
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes, one entry per answer
    statuses: list[int] = field(default_factory=list)  # answered first, one per request
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    gate: threading.Event | None = None  # a body waits for it
    url: str = ""

    def ranges_asked(self) -> list[str | None]:
        return [asked for method, asked in self.requests if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        site = self.site
        asked = self.headers.get("Range")
        site.requests.append((self.command, asked))
        if site.statuses:
            return self.send_error(site.statuses.pop(0))
        if self.path not in site.files:
            return self.send_error(404)
        content = site.files[self.path]
        start, status, extent = 0, 200, ""
        if asked and site.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
            within = start < len(content)
            status, extent = (206, f"{start}-{len(content) - 1}") if within else (416, "*")
        body = content[start:]
        self.send_response(status)
        self.send_header("Content-Range", f"bytes {extent}/{len(content)}")
        self.send_header("ETag", site.version)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            if site.gate is not None:
                self.wfile.write(body[:1000])
                body = body[1000:]
                assert site.gate.wait(20)
            self.wfile.write(body[: site.break_after.pop(0)] if site.break_after else body)
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(downloads, "PAUSE_S", 0)
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": site}))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "a.bin"


def leftovers(folder: Path) -> list[str]:
    """All but the locks, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize(
    ("behaviour", "asked"),
    [
        ({}, [None]),
        ({"break_after": [300_000, 200_000]}, [None, "bytes=300000-", "bytes=500000-"]),
        ({"break_after": [300_000], "ranges": False}, [None, "bytes=300000-"]),
        ({"statuses": [503, 429]}, [None] * 3),
    ],
)
def test_a_file_lands_whole_whatever_the_server_does(site, target, monkeypatch, behaviour, asked):
    """It is taken up where it broke, unless the server does not resume; a busy one asked again."""
    monkeypatch.setattr(downloads, "TRIES", 3 if "statuses" in behaviour else 2)
    vars(site).update(behaviour)
    assert download(f"{site.url}/a.bin", target, size=len(CONTENT)) == target
    assert target.read_bytes() == CONTENT
    assert leftovers(target.parent) == ["a.bin"]
    assert site.ranges_asked() == asked


def test_a_file_that_is_there_is_not_fetched_again(site, tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"mine")
    download(f"{site.url}/a.bin", target)
    download(f"{site.url}/a.bin", target, size=4)
    assert target.read_bytes() == b"mine"
    assert site.requests == []
    with pytest.raises(UserError, match=r"there already, but has 4 bytes where 5 .* remove it"):
        download(f"{site.url}/a.bin", target, size=5)
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize("changed", [False, True])
def test_a_later_call_continues_what_an_earlier_one_left(site, target, monkeypatch, changed):
    """Unless the server has another version now: parts of two are never joined."""
    site.break_after = [300_000]
    with monkeypatch.context() as once:
        once.setattr(downloads, "TRIES", 1)
        with pytest.raises(UserError, match=r"broke after 300000 of 1048576 .*300\.0 kB\) is kept"):
            download(f"{site.url}/a.bin", target)
    assert not target.exists()
    assert Path(f"{target}.part").read_bytes() == CONTENT[:300_000]
    if changed:
        site.files["/a.bin"], site.version = CONTENT[::-1], '"2"'
    download(f"{site.url}/a.bin", target)
    assert target.read_bytes() == site.files["/a.bin"]
    assert site.ranges_asked() == [None, "bytes=300000-", None][: 2 + changed]


SECOND = """
import sys
from pathlib import Path
from yolo.apps.download.downloads import download
print(download(sys.argv[1], Path(sys.argv[2])).stat().st_size)
"""


@pytest.fixture
def another_process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*command: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY_ROOT, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def waiting_line(process: subprocess.Popen[str]) -> str:
    """The line that a process prints when it waits for another; none if it does not."""
    assert process.stderr is not None
    limit = threading.Timer(15, process.kill)
    limit.start()
    printed = next((line for line in process.stderr if "waiting for its end" in line), "")
    limit.cancel()
    return printed


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_waits_for_the_end_of_the_first(site, target, another_process, killed):
    """And fetches nothing, unless the first was killed, which keeps nobody out."""
    site.gate = threading.Event()
    argv = ["-c", SECOND, f"{site.url}/a.bin", str(target)]
    first = another_process(*argv)
    while not Path(f"{target}.part").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = another_process(*argv)
    assert waiting_line(second).startswith(f"{target}: another process")
    if killed:
        first.kill()
        first.wait()
    site.gate.set()
    assert second.communicate(timeout=20)[0] == "1048576\n"
    assert first.communicate(timeout=20)[0] == ("" if killed else "1048576\n")
    assert target.read_bytes() == CONTENT
    assert len(site.requests) == 1 + killed
    assert leftovers(target.parent) == ["a.bin"]


def test_a_part_that_is_already_whole_is_taken(site, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    download(f"{site.url}/a.bin", tmp_path / "a.bin")  # 416: there is nothing behind its end
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("b.bin", None, r"/b\.bin: the server answers 404"),
        ("a.bin", 7, "has 1048576 bytes where 7 were expected"),
    ],
)
def test_what_cannot_end_well_fails_at_once(site, target, name, size, sentence):
    with pytest.raises(UserError, match=sentence):
        download(f"{site.url}/{name}", target, size=size)
    assert len(site.requests) == 1
    assert leftovers(target.parent) == []


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Long: "
DRIPS = {
    "head": ([HEAD[i : i + 1] for i in range(len(HEAD))] + [b"x"] * 1000, 0.05, "less than 1.0 kB"),
    "body": ([HEAD + b"\r\n\r\n"] + [b"x"] * 1000, 0.05, "less than 1.0 kB"),
    "a byte each time": ([HEAD + b"\r\n\r\nx"], 0.0, "the connection broke after . of 1000 bytes"),
}


@pytest.mark.parametrize("drip", DRIPS)
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(target, monkeypatch, drip):
    pieces, pause_s, sentence = DRIPS[drip]
    for name, value in (("SLOW_S", 0.5), ("TRIES", 3), ("PAUSE_S", 0)):
        monkeypatch.setattr(downloads, name, value)

    class SlowToEnd(threading.Timer):
        """Still alive when the connection that it has ended fails here."""

        def run(self) -> None:
            super().run()
            time.sleep(0.2)

    monkeypatch.setattr(threading, "Timer", SlowToEnd)

    class Drip(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(9999)
            with suppress(OSError):
                for piece in pieces:
                    self.request.sendall(piece)
                    time.sleep(pause_s)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drip) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        start = time.monotonic()
        with pytest.raises(UserError, match=sentence):
            download(f"http://127.0.0.1:{server.server_address[1]}/a.bin", target)
        assert time.monotonic() - start < 5
        server.shutdown()
    assert not target.exists()


def test_offline_is_one_sentence(target, monkeypatch, capsys):
    monkeypatch.setattr(downloads, "PAUSE_S", 0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        mirror = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(UserError, match=r"no connection \(.*refused.*check the connection"):
            download(f"{mirror}/a.bin", target)
        with pytest.raises(UserError, match="check the connection"):
            remote_size(f"{mirror}/a.bin")
        argv = ["yolov3.weights", "--folder", str(target.parent), "--mirror", mirror]
        assert download_weights.main(argv) == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"^error: cannot fetch .*no connection .* check the connection", printed)
    assert leftovers(target.parent) == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "a.bin", "http://a b/c"])
def test_an_address_that_is_none(url, target):
    with pytest.raises(UserError, match=r"http:// or https://|not a valid address"):
        download(url, target)


def test_too_little_space_is_refused_before_the_first_byte(site, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 0, 1000))
    with pytest.raises(UserError, match=r"needs 1\.0 MB, 1\.0 kB are free"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin")


def test_a_disk_that_fills_up_is_one_sentence(site, tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"no space left .* make room"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin")


@pytest.mark.parametrize("name", ["a.bin.part", "a.bin.part-version"])
@pytest.mark.parametrize("others", [{"others": b"others"}, {}])
def test_no_link_is_followed(site, target, name, others):
    """To a file or to nothing, in a folder where somebody else may write."""
    outside = target.parent.parent / "outside"
    for folder in (outside, target.parent):
        folder.mkdir()
    for other, content in others.items():
        (outside / other).write_bytes(content)
    target.with_name(name).symlink_to(outside / "others")
    download(f"{site.url}/a.bin", target)
    assert target.read_bytes() == CONTENT and leftovers(target.parent) == ["a.bin"]
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == others


def test_a_folder_that_cannot_be_made_is_one_sentence(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/a\.bin"):
        download(f"{site.url}/a.bin", tmp_path / "file" / "a.bin")


def test_progress_without_a_terminal_is_plain_lines(site, tmp_path, capsys):
    download(f"{site.url}/a.bin", tmp_path / "a.bin")
    captured = capsys.readouterr()
    assert captured.err == "a.bin: 1.0 MB of 1.0 MB\n"
    assert captured.out == ""


def test_readable_size():
    sizes = [readable_size(size) for size in (999, 1000, 1_234_567, 19.34e9)]
    assert sizes == ["999 B", "1.0 kB", "1.2 MB", "19.3 GB"]


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(*members: tuple[str, bytes | str]) -> bytes:
    """Files, and where the content is text, symbolic links to there."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def serve(site, tmp_path, monkeypatch) -> Callable[..., Callable[..., int]]:
    """Archives in the places of a script's real ones, their sizes for the known ones.

    Returns the script's command, whose ``--root`` is ``data``.
    """

    def serve(script: ModuleType, contents: dict[str, bytes]) -> Callable[..., int]:
        site.files = {}
        for name, content in contents.items():
            archive = script.ARCHIVES[name]
            site.files[f"/{archive.url_path}"] = content
            known = replace(archive, size=archive.size and len(content))
            monkeypatch.setitem(script.ARCHIVES, name, known)
        options = ["--root", str(tmp_path / "data"), "--base-url", site.url]
        return lambda *more: script.main([*options, *more])

    return serve


COCO = {
    "annotations": zipped({"annotations/val.json": b"{}"}),
    "val": zipped({"val2017/1.jpg": b"one", "val2017/2.jpg": b"two"}),
}
VOC = {
    "2007/trainval": tarred(("VOCdevkit/VOC2007/Annotations/000005.xml", b"five")),
    "2007/test": tarred(("VOCdevkit/VOC2007/Annotations/000001.xml", b"one")),
    "2012/trainval": tarred(("VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg", b"two")),
}


def test_coco_is_fetched_and_unpacked_once(site, serve, tmp_path, capsys):
    fetch = serve(download_coco, COCO)
    assert fetch("--splits", "val", "--delete-zips") == 0
    assert "error" not in capsys.readouterr().err
    root = tmp_path / "data"
    files = [str(path.relative_to(root)) for path in sorted(root.glob("*/*"))]
    assert files == ["annotations/val.json", "val2017/1.jpg", "val2017/2.jpg"]
    assert list(root.glob("*.zip")) == []
    site.requests.clear()
    assert fetch("--splits", "val") == 0
    assert site.requests == []


def test_voc_goes_on_where_it_stopped_and_is_unpacked_once(site, serve, tmp_path):
    assert sum(archive.size for archive in download_voc.ARCHIVES.values()) == 2_910_691_840
    fetch, root = serve(download_voc, VOC), tmp_path / "data"
    root.mkdir()
    part = root / "VOCtrainval_06-Nov-2007.tar.part"
    part.write_bytes(VOC["2007/trainval"][:600])
    part.with_name(f"{part.name}-version").write_text(site.version)
    assert fetch("--delete-tars") == 0
    assert site.ranges_asked() == ["bytes=600-", None, None]
    files = sorted(path for path in root.glob("VOCdevkit/*/*/*"))
    assert [path.read_bytes() for path in files] == [b"one", b"five", b"two"]
    assert list(root.glob("VOC*.tar*")) == []
    site.requests.clear()
    assert fetch() == 0
    assert site.requests == []


def test_the_mark_of_what_is_unpacked_follows_no_link(serve, tmp_path):
    fetch, root = serve(download_coco, COCO), tmp_path / "data"
    root.mkdir()
    (root / ".annotations_trainval2017.zip.unpacked").symlink_to(tmp_path / "others")
    assert fetch("--splits", "val") == 0
    assert not (tmp_path / "others").exists()


def test_what_one_process_unpacks_no_other_unpacks_too(site, serve, tmp_path, monkeypatch):
    """Two of them would remove the archive under each other's feet."""
    serve(download_coco, COCO)
    archive = download_coco.ARCHIVES["annotations"]
    unpacking, goes_on, unpacked = threading.Event(), threading.Event(), []

    def slow(path: Path, root: Path) -> int:
        unpacking.set()
        assert goes_on.wait(20)
        unpacked.append(path.name)
        return 0

    def fetch() -> None:
        archives.fetch_archives([archive], tmp_path, base_url=site.url, delete=True, advice="")

    printed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", printed)
    monkeypatch.setattr(archives, "unpack", slow)
    threads = [threading.Thread(target=fetch) for _ in range(2)]
    threads[0].start()
    assert unpacking.wait(20)
    threads[1].start()
    while "another process is unpacking this file; waiting for its end" not in printed.getvalue():
        assert threads[1].is_alive()
        time.sleep(0.01)
    goes_on.set()
    for thread in threads:
        thread.join()
    assert unpacked == [archive.name]
    assert leftovers(tmp_path) == [f".{archive.name}.unpacked"]


COCO_VAL = (download_coco, COCO, "--splits", "val")
VOC_TEST = (download_voc, VOC, "--sets", "2007/test")


@pytest.mark.parametrize(
    ("source", "content", "sentence"),
    [
        (COCO_VAL, zipped({"../out.txt": b"x"}), "leads out of"),
        (COCO_VAL, b"no zip", "is broken"),
        (VOC_TEST, tarred(("../out.txt", b"x")), "leads out of"),
        (VOC_TEST, tarred(("VOCdevkit", ".."), ("VOCdevkit/out.txt", b"x")), "neither file nor"),
        (VOC_TEST, b"no tar" * 100, "is broken"),
        (VOC_TEST, tarred(("VOCdevkit/a.xml", b"x" * 4000))[:2000], "is broken"),
    ],
)
def test_a_bad_archive_is_refused(serve, tmp_path, capsys, source, content, sentence):
    script, contents, *wanted = source
    assert serve(script, contents | {wanted[1]: content})(*wanted) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out.txt").exists()
    assert not (tmp_path / "data" / f".{script.ARCHIVES[wanted[1]].name}.unpacked").exists()


def test_voc_of_another_size_is_refused(site, tmp_path, capsys):
    site.files = {"/voc2007/VOCtest_06-Nov-2007.tar": b"a page that begs pardon"}
    argv = ["--root", str(tmp_path), "--base-url", site.url, "--sets", "2007/test"]
    assert download_voc.main(argv) == 1
    assert "has 23 bytes where 451020800 were expected" in capsys.readouterr().err


# scripts/download_weights.py, in process


@pytest.fixture
def fetch_weights(site: Site, tmp_path: Path, monkeypatch) -> Callable[..., int]:
    """The script, with a small file in the place of the real one."""
    monkeypatch.setitem(download_weights.SIZES, "yolov3.weights", len(CONTENT))
    site.files = {"/files/yolov3.weights": CONTENT}
    options = ["--folder", str(tmp_path / "weights"), "--mirror", f"{site.url}/files/"]
    return lambda *names: download_weights.main([*names, *options])


def test_weights_in_part_are_taken_up_by_the_next_call(site, tmp_path, fetch_weights, capsys):
    site.break_after = [300_000, *[0] * 4, 200_000]  # after five failures in a row it gives up
    assert fetch_weights("yolov3.weights") == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("error: cannot fetch ") and "start again" in printed
    assert leftovers(tmp_path / "weights") == ["yolov3.weights.part", "yolov3.weights.part-version"]
    assert fetch_weights("yolov3.weights") == 0
    assert leftovers(tmp_path / "weights") == ["yolov3.weights"]
    assert (tmp_path / "weights/yolov3.weights").read_bytes() == CONTENT
    assert site.ranges_asked() == [None, *["bytes=300000-"] * 5, "bytes=500000-"]
    assert "yolov3.weights: 1,048,576 bytes" in capsys.readouterr().out
    site.requests.clear()
    assert fetch_weights("yolov3.weights") == 0
    assert site.requests == []


@pytest.mark.parametrize("content", [CONTENT[:-4], CONTENT + b"more", b"", b"<html>gone</html>"])
def test_weights_of_the_wrong_length_are_refused(site, tmp_path, fetch_weights, capsys, content):
    site.files["/files/yolov3.weights"] = content
    assert fetch_weights("yolov3.weights") == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert f"has {len(content)} bytes where 1048576 were expected" in printed
    assert leftovers(tmp_path / "weights") == []


@pytest.mark.parametrize("arguments", [["yolov4.weights"], []])
def test_unknown_weights_are_named_beside_those_that_are_known(usage_error, arguments):
    assert "darknet53.conv.74" in usage_error(download_weights.main, *arguments).splitlines()[-1]


def test_weights_are_listed_with_their_sizes(tmp_path, capsys):
    (tmp_path / "yolov2.weights").touch()
    assert download_weights.main(["--list", "--folder", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["darknet53.conv.74", "162.5", "MB"] in lines
    assert ["yolov2.weights", "203.9", "MB", "here"] in lines


def test_the_sizes_are_those_of_the_models():
    """A header of 20 bytes, 16 in the three older files, and four for each number."""
    sizes = download_weights.SIZES
    floats = {name: (size - 20) / 4 for name, size in sizes.items()}
    assert floats["yolov3.weights"] == 62_001_757
    assert floats["yolov3-tiny.weights"] == 8_858_734
    assert floats["yolov3-spp.weights"] == 63_052_381
    assert floats["darknet53.conv.74"] == 41_645_640 - 1000 * 1025  # less the classifier
    assert (sizes["darknet19_448.conv.23"] - 16) / 4 == 20_856_776 - 1000 * 1025
    # 60 classes more at 5 anchors are 300 filters of 1024 weights and a bias
    assert sizes["yolov2.weights"] - sizes["yolov2-voc.weights"] == 4 * 300 * 1025
