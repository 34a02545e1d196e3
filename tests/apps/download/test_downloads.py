"""The downloader and the scripts that use it against a server on loopback."""

import hashlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts import download_voc, download_weights
from yolo.apps.download import archives
from yolo.apps.download.downloads import download, readable_size, remote_size
from yolo.errors import UserError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SCRIPT = Path(__file__).resolve().parents[3] / "scripts/download_coco.py"


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
        start = 0
        if asked and site.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", site.version)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            body = content[start:]
            if site.gate is not None:
                self.wfile.write(body[:1000])
                body = body[1000:]
                assert site.gate.wait(20)
            self.wfile.write(body[: site.break_after.pop(0)] if site.break_after else body)
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": site}))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def leftovers(folder: Path) -> list[str]:
    """All but the locks, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_whole_file_lands_under_its_name_with_nothing_beside_it(site, tmp_path):
    target = tmp_path / "deep" / "a.bin"
    checksum = hashlib.sha256(CONTENT).hexdigest()
    assert download(f"{site.url}/a.bin", target, size=len(CONTENT), sha256=checksum) == target
    assert target.read_bytes() == CONTENT
    assert leftovers(target.parent) == ["a.bin"]


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


def test_a_broken_connection_is_taken_up_where_it_broke(site, tmp_path):
    site.break_after = [300_000, 200_000]
    target = download(f"{site.url}/a.bin", tmp_path / "a.bin", tries=2, pause_s=0)
    assert target.read_bytes() == CONTENT
    assert site.ranges_asked() == [None, "bytes=300000-", "bytes=500000-"]
    assert leftovers(tmp_path) == ["a.bin"]


def test_a_later_call_continues_what_an_earlier_one_left(site, tmp_path):
    site.break_after = [300_000]
    with pytest.raises(UserError, match=r"broke after 300000 of 1048576 .* \(300\.0 kB\) is kept"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin", tries=1)
    assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:300_000]
    download(f"{site.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.ranges_asked() == [None, "bytes=300000-"]


SECOND = """
import sys
from pathlib import Path
from yolo.apps.download.downloads import download
print(download(sys.argv[1], Path(sys.argv[2])).stat().st_size)
"""


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def another_process() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(*command: str) -> subprocess.Popen[str]:
        root, pipe = Path(__file__).resolve().parents[3], subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, *command], cwd=root, stdout=pipe, stderr=pipe, text=True
        )
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


def test_a_second_process_waits_for_the_first_and_fetches_nothing(site, tmp_path, another_process):
    site.gate = threading.Event()
    argv = ["-c", SECOND, f"{site.url}/a.bin", str(tmp_path / "a.bin")]
    first = another_process(*argv)
    while not (tmp_path / "a.bin.part").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = another_process(*argv)
    assert waiting_line(second).startswith(f"{tmp_path / 'a.bin'}: another process")
    site.gate.set()
    assert [process.communicate(timeout=20)[0] for process in (first, second)] == ["1048576\n"] * 2
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(site.requests) == 1
    assert leftovers(tmp_path) == ["a.bin"]


def test_a_process_that_was_killed_keeps_nobody_out(site, tmp_path, another_process):
    site.gate = threading.Event()
    argv = ["-c", SECOND, f"{site.url}/a.bin", str(tmp_path / "a.bin")]
    first = another_process(*argv)
    while not (tmp_path / "a.bin.part").exists():
        time.sleep(0.01)
    second = another_process(*argv)
    assert waiting_line(second)
    first.kill()
    first.wait()
    site.gate.set()
    assert second.communicate(timeout=20)[0] == "1048576\n"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["a.bin"]


def test_a_part_that_is_already_whole_is_taken(site, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    download(f"{site.url}/a.bin", tmp_path / "a.bin")  # 416: there is nothing behind its end
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_parts_of_two_versions_are_never_joined(site, tmp_path):
    site.break_after = [300_000]
    with pytest.raises(UserError):
        download(f"{site.url}/a.bin", tmp_path / "a.bin", tries=1)
    site.files["/a.bin"], site.version = CONTENT[::-1], '"2"'
    download(f"{site.url}/a.bin", tmp_path / "a.bin", pause_s=0)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_a_server_that_does_not_resume_is_asked_for_the_whole(site, tmp_path):
    site.ranges = False
    site.break_after = [300_000]
    download(f"{site.url}/a.bin", tmp_path / "a.bin", pause_s=0)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.ranges_asked() == [None, "bytes=300000-"]


def test_a_busy_server_is_asked_again(site, tmp_path):
    site.statuses = [503, 429]
    download(f"{site.url}/a.bin", tmp_path / "a.bin", pause_s=0)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_no_such_file_fails_at_once(site, tmp_path):
    with pytest.raises(UserError, match=r"/b\.bin: the server answers 404"):
        download(f"{site.url}/b.bin", tmp_path / "b.bin")
    assert len(site.requests) == 1
    assert leftovers(tmp_path) == []


def test_another_size_is_refused_before_the_first_byte(site, tmp_path):
    with pytest.raises(UserError, match="has 1048576 bytes where 7 were expected"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin", size=7)
    assert leftovers(tmp_path) == []


def test_another_checksum_leaves_nothing(site, tmp_path):
    with pytest.raises(UserError, match="SHA-256"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin", sha256="0" * 64)
    assert leftovers(tmp_path) == []


def test_offline_is_one_sentence(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.bin"
        with pytest.raises(UserError, match=r"no connection \(.*refused.*check the connection"):
            download(url, tmp_path / "a.bin", tries=2, pause_s=0)
        with pytest.raises(UserError, match="check the connection"):
            remote_size(url)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "a.bin", "http://a b/c"])
def test_an_address_that_is_none(url, tmp_path):
    with pytest.raises(UserError, match=r"http:// or https://|not a valid address"):
        download(url, tmp_path / "a.bin")


def test_too_little_space_is_refused_before_the_first_byte(site, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 0, 1000))
    with pytest.raises(UserError, match=r"needs 1\.0 MB, 1\.0 kB are free"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin")


def test_a_disk_that_fills_up_is_one_sentence(site, tmp_path):
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("this system has no /dev/full")
    (tmp_path / "a.bin.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"no space left .* make room"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin")


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


def fetch_coco(site: Site, root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--root", str(root), "--base-url", site.url]
    return subprocess.run(
        [*command, "--splits", "val", *more], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def coco_site(site: Site) -> Site:
    site.files = {
        "/annotations/annotations_trainval2017.zip": zipped({"annotations/val.json": b"{}"}),
        "/zips/val2017.zip": zipped({"val2017/1.jpg": b"one", "val2017/2.jpg": b"two"}),
    }
    return site


def test_coco_is_fetched_and_unpacked_once(coco_site, tmp_path):
    root = tmp_path / "coco"
    first = fetch_coco(coco_site, root, "--delete-zips")
    assert (first.returncode, first.stderr.count("error")) == (0, 0)
    files = [str(path.relative_to(root)) for path in sorted(root.glob("*/*"))]
    assert files == ["annotations/val.json", "val2017/1.jpg", "val2017/2.jpg"]
    assert list(root.glob("*.zip")) == []
    coco_site.requests.clear()
    assert fetch_coco(coco_site, root).returncode == 0
    assert coco_site.requests == []


def test_what_one_process_unpacks_no_other_unpacks_too(coco_site, tmp_path, monkeypatch):
    """Two of them would remove the archive under each other's feet."""
    (name,) = [name for name in coco_site.files if "annotations" in name]
    archive = archives.Archive(name.lstrip("/"))
    unpacking, goes_on, unpacked = threading.Event(), threading.Event(), []

    def slow(path: Path, root: Path) -> int:
        unpacking.set()
        assert goes_on.wait(20)
        unpacked.append(path.name)
        return 0

    def fetch() -> None:
        archives.fetch_archives([archive], tmp_path, base_url=coco_site.url, delete=True, advice="")

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


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(zipped({"../out.txt": b"x"}), "leads out of"), (b"no zip", "is broken")],
)
def test_coco_refuses_a_bad_archive(coco_site, tmp_path, content, sentence):
    coco_site.files["/zips/val2017.zip"] = content
    result = fetch_coco(coco_site, tmp_path / "coco")
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.txt").exists()


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
def serve_voc(site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], None]:
    """Tars in the places of the real ones; the script takes their sizes for the known ones."""

    def serve(tars: dict[str, bytes]) -> None:
        site.files = {}
        for name, content in tars.items():
            archive = replace(download_voc.ARCHIVES[name], size=len(content))
            monkeypatch.setitem(download_voc.ARCHIVES, name, archive)
            site.files[f"/{archive.url_path}"] = content

    return serve


def fetch_voc(site: Site, root: Path, *more: str) -> int:
    return download_voc.main(["--root", str(root), "--base-url", site.url, *more])


VOC_TARS = {
    "2007/trainval": tarred(("VOCdevkit/VOC2007/Annotations/000005.xml", b"five")),
    "2007/test": tarred(("VOCdevkit/VOC2007/Annotations/000001.xml", b"one")),
    "2012/trainval": tarred(("VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg", b"two")),
}


def test_voc_goes_on_where_it_stopped_and_is_unpacked_once(site, serve_voc, tmp_path):
    assert sum(archive.size for archive in download_voc.ARCHIVES.values()) == 2_910_691_840
    serve_voc(VOC_TARS)
    name = "VOCtrainval_06-Nov-2007.tar"
    (tmp_path / f"{name}.part").write_bytes(VOC_TARS["2007/trainval"][:600])
    (tmp_path / f"{name}.part-version").write_text(site.version)
    assert fetch_voc(site, tmp_path, "--delete-tars") == 0
    assert site.ranges_asked() == ["bytes=600-", None, None]
    files = sorted(path for path in tmp_path.glob("VOCdevkit/*/*/*"))
    assert [path.read_bytes() for path in files] == [b"one", b"five", b"two"]
    assert list(tmp_path.glob("VOC*.tar*")) == []
    site.requests.clear()
    assert fetch_voc(site, tmp_path) == 0
    assert site.requests == []


def test_voc_of_another_size_is_refused(site, tmp_path, capsys):
    site.files = {"/voc2007/VOCtest_06-Nov-2007.tar": b"a page that begs pardon"}
    assert fetch_voc(site, tmp_path, "--sets", "2007/test") == 1
    assert "has 23 bytes where 451020800 were expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (tarred(("../out.txt", b"x")), "leads out of"),
        (tarred(("VOCdevkit", ".."), ("VOCdevkit/out.txt", b"x")), "neither file nor folder"),
        (b"no tar" * 100, "is broken"),
        (tarred(("VOCdevkit/a.xml", b"x" * 4000))[:2000], "is broken"),
    ],
)
def test_voc_refuses_a_bad_archive(site, serve_voc, tmp_path, capsys, content, sentence):
    serve_voc({"2007/test": content})
    assert fetch_voc(site, tmp_path / "data", "--sets", "2007/test") == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out.txt").exists()
    assert not list((tmp_path / "data").glob(".*unpacked"))


# scripts/download_weights.py, in process


@pytest.fixture
def fetch_weights(site: Site, tmp_path: Path, monkeypatch) -> Callable[..., int]:
    """The script, with a small file in the place of the real one."""
    monkeypatch.setitem(download_weights.SIZES, "yolov3.weights", len(CONTENT))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    site.files = {"/files/yolov3.weights": CONTENT}
    options = ["--folder", str(tmp_path / "weights"), "--mirror", f"{site.url}/files/"]
    return lambda *names: download_weights.main([*names, *options])


def test_weights_are_fetched_once(site, tmp_path, fetch_weights, capsys):
    assert fetch_weights("yolov3.weights") == 0
    assert leftovers(tmp_path / "weights") == ["yolov3.weights"]
    assert (tmp_path / "weights/yolov3.weights").read_bytes() == CONTENT
    assert "yolov3.weights: 1,048,576 bytes" in capsys.readouterr().out
    site.requests.clear()
    assert fetch_weights("yolov3.weights") == 0
    assert site.requests == []


def test_weights_from_a_server_that_breaks_off(site, tmp_path, fetch_weights):
    site.break_after = [300_000, 200_000]
    assert fetch_weights("yolov3.weights") == 0
    assert (tmp_path / "weights/yolov3.weights").read_bytes() == CONTENT
    assert site.ranges_asked() == [None, "bytes=300000-", "bytes=500000-"]


def test_weights_in_part_are_taken_up_by_the_next_call(site, tmp_path, fetch_weights, capsys):
    site.break_after = [300_000, *[0] * 4]  # after five failures in a row it gives up
    assert fetch_weights("yolov3.weights") == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("error: cannot fetch ") and "start again" in printed
    assert leftovers(tmp_path / "weights") == ["yolov3.weights.part", "yolov3.weights.part-version"]
    assert fetch_weights("yolov3.weights") == 0
    assert leftovers(tmp_path / "weights") == ["yolov3.weights"]


@pytest.mark.parametrize("content", [CONTENT[:-4], CONTENT + b"more", b"", b"<html>gone</html>"])
def test_weights_of_the_wrong_length_are_refused(site, tmp_path, fetch_weights, capsys, content):
    site.files["/files/yolov3.weights"] = content
    assert fetch_weights("yolov3.weights") == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert f"has {len(content)} bytes where 1048576 were expected" in printed
    assert leftovers(tmp_path / "weights") == []


def test_weights_offline_are_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{unused.getsockname()[1]}"
        arguments = ["yolov3.weights", "--folder", str(tmp_path), "--mirror", mirror]
        assert download_weights.main(arguments) == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"^error: cannot fetch .*no connection .* check the connection", printed)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("arguments", [["yolov4.weights"], []])
def test_unknown_weights_are_named_beside_those_that_are_known(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        download_weights.main(arguments)
    assert ended.value.code == 2
    assert "darknet53.conv.74" in capsys.readouterr().err.splitlines()[-1]


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
