"""Downloads from a server on this machine: whole, resumed, damaged, hostile and killed."""

import gzip
import hashlib
import io
import os
import shutil
import signal
import socket
import tarfile
import threading
import warnings
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from smoothed.data.cifar import CIFARS, load_cifar
from smoothed.data.download import download_cifar, unpack
from smoothed.errors import ArgumentError, DataError, OutputError

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"


class Server(ThreadingHTTPServer):
    """Serves `content` at every path; keeps the Range header and the bytes sent of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.status, self.breaks_after = b"", True, None, None
        self.requests, self.sent = [], []
        self.url = f"http://127.0.0.1:{self.server_port}/{ARCHIVE}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.requests.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        body = server.content[start:]
        if server.status:
            return self.send_error(server.status)
        if start and not body:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[: server.breaks_after]
        server.sent.append(len(sent))
        try:
            self.wfile.write(sent)
        except ConnectionError:  # the reader was killed
            self.close_connection = True
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tar_of(*members):
    """A tar.gz of (name, content) files, or of whole `TarInfo`s."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return gzip.compress(buffer.getvalue(), mtime=0)


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def publish(server, monkeypatch):
    """A function that lets the server serve an archive, and CIFAR-10's entry expect its md5."""

    def publish(archive):
        server.content = archive
        md5 = hashlib.md5(archive).hexdigest()  # noqa: S324 - what the official site publishes
        monkeypatch.setitem(CIFARS, "cifar10", replace(CIFARS["cifar10"], md5=md5))

    return publish


@pytest.fixture
def cifar10(tmp_path, write_cifar, publish):
    """Serves a small CIFAR-10 of more than one block; the bytes of its archive."""
    written = tmp_path / "written"
    write_cifar(written, "cifar10", count=60)
    members = sorted((written / FOLDER).iterdir())
    archive = tar_of(*((f"{FOLDER}/{path.name}", path.read_bytes()) for path in members))
    publish(archive)
    return archive


@pytest.fixture
def root(tmp_path):
    return tmp_path / "sets"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_download(server, cifar10, root, tmp_path):
    seen = []
    folder = download_cifar("cifar10", root, url=server.url, on_progress=lambda *numbers: seen.append(numbers))
    assert folder == root / FOLDER
    assert names_in(root) == [FOLDER]
    for path in (tmp_path / "written" / FOLDER).iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert server.requests == [None]
    assert seen[-1] == (len(cifar10), len(cifar10))
    assert [there for there, _ in seen] == sorted(there for there, _ in seen)
    assert len(load_cifar("cifar10", "train", root)) == 300


def test_a_folder_that_is_there_is_not_fetched_again(server, root):
    (root / FOLDER).mkdir(parents=True)
    assert download_cifar("cifar10", root, url=server.url) == root / FOLDER
    assert server.requests == []


@pytest.mark.parametrize("there", [1, 1000, -1])
def test_a_download_goes_on_where_it_was(server, cifar10, root, there):
    there %= len(cifar10)
    root.mkdir()
    (root / f"{ARCHIVE}.part").write_bytes(cifar10[:there])
    seen = []
    download_cifar("cifar10", root, url=server.url, on_progress=lambda *numbers: seen.append(numbers))
    assert server.requests == [f"bytes={there}-"]
    assert server.sent == [len(cifar10) - there]
    assert seen[-1] == (len(cifar10), len(cifar10))
    assert names_in(root) == [FOLDER]


def test_a_part_that_is_whole_is_not_fetched_again(server, cifar10, root):
    root.mkdir()
    (root / f"{ARCHIVE}.part").write_bytes(cifar10)
    download_cifar("cifar10", root, url=server.url)
    assert server.sent == []
    assert names_in(root) == [FOLDER]


def test_an_archive_that_is_there_is_not_fetched_again(server, cifar10, root):
    root.mkdir()
    (root / ARCHIVE).write_bytes(cifar10)
    download_cifar("cifar10", root, url=server.url)
    assert server.requests == []
    assert names_in(root) == [FOLDER]


@pytest.mark.parametrize("part", [b"", b"x" * 1000, b"x" * 10_000_000])
def test_a_server_without_ranges_sends_all_of_it(server, cifar10, root, part):
    server.ranges = False
    root.mkdir()
    (root / f"{ARCHIVE}.part").write_bytes(part)
    download_cifar("cifar10", root, url=server.url)
    assert server.sent == [len(cifar10)]
    assert names_in(root) == [FOLDER]


def test_a_connection_that_breaks_leaves_what_came(server, cifar10, root):
    server.breaks_after = 300_000
    with pytest.raises(
        DataError, match=rf"expected {len(cifar10)} bytes, got 300000; run the command again to continue"
    ):
        download_cifar("cifar10", root, url=server.url)
    assert (root / f"{ARCHIVE}.part").read_bytes() == cifar10[:300_000]
    server.breaks_after = None
    download_cifar("cifar10", root, url=server.url)
    assert server.requests == [None, "bytes=300000-"]
    assert names_in(root) == [FOLDER]


def test_an_interrupted_download_goes_on(server, cifar10, root):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_cifar("cifar10", root, url=server.url, on_progress=interrupt)
    there = (root / f"{ARCHIVE}.part").stat().st_size
    assert 0 < there < len(cifar10)
    download_cifar("cifar10", root, url=server.url)
    assert server.requests == [None, f"bytes={there}-"]


def test_a_killed_download_goes_on(server, cifar10, root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads; the child only fetches and dies
        child = os.fork()
    if child == 0:
        try:
            kill = os.getpid(), signal.SIGKILL
            download_cifar("cifar10", root, url=server.url, on_progress=lambda *_: os.kill(*kill))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    there = (root / f"{ARCHIVE}.part").stat().st_size
    assert 0 < there < len(cifar10)
    download_cifar("cifar10", root, url=server.url)
    assert server.requests[-1] == f"bytes={there}-"
    assert names_in(root) == [FOLDER]


@pytest.mark.parametrize("name", [ARCHIVE, f"{ARCHIVE}.part"])
def test_a_wrong_md5_is_refused_and_deleted(server, cifar10, root, name):
    root.mkdir()
    (root / name).write_bytes(b"x" * len(cifar10))
    with pytest.raises(
        DataError, match=rf"{name}: expected MD5 sum [0-9a-f]{{32}}, got [0-9a-f]{{32}}; the file was deleted"
    ):
        download_cifar("cifar10", root, url=server.url)
    assert names_in(root) == []
    download_cifar("cifar10", root, url=server.url)
    assert names_in(root) == [FOLDER]


def test_the_official_md5s():
    # As https://www.cs.toronto.edu/~kriz/cifar.html prints them.
    assert CIFARS["cifar10"].md5 == "c58f30108f718f92721af3b95e74349a"
    assert CIFARS["cifar100"].md5 == "eb9058c3a382ffc7106e4002c42a8d85"


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_refuses(server, root, status):
    server.status = status
    with pytest.raises(DataError, match=f"{server.url}: expected the archive, got HTTP status {status} "):
        download_cifar("cifar10", root, url=server.url)
    assert names_in(root) == []


def test_no_server(root, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/{ARCHIVE}"
        with pytest.raises(DataError, match=r"no connection \(.*refused.*\); run the command again to continue"):
            download_cifar("cifar10", root, url=url)


def test_a_server_that_talks_something_else(root, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DataError, match="no connection"):
            download_cifar("cifar10", root, url=f"http://127.0.0.1:{listener.getsockname()[1]}/x")
        thread.join()


def test_an_unknown_name(root):
    with pytest.raises(ArgumentError, match="name: expected one of cifar10, cifar100, got 'mnist'"):
        download_cifar("mnist", root)


def test_a_file_in_place_of_the_folder(server, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file: could not be written"):
        download_cifar("cifar10", tmp_path / "file", url=server.url)
    assert (tmp_path / "file").read_text() == "mine"


HOSTILE = {
    "parent": ("../evil", b"x"),
    "parent inside": (f"{FOLDER}/../evil", b"x"),
    "parents inside": (f"{FOLDER}/a/../../../evil", b"x"),
    "another folder": ("evil/data", b"x"),
    "beside": ("evil", b"x"),
    "symlink": link(f"{FOLDER}/link", "../../evil", tarfile.SYMTYPE),
    "symlink inside": link(f"{FOLDER}/link", "test_batch", tarfile.SYMTYPE),
    "folder as a symlink": link(FOLDER, "/tmp", tarfile.SYMTYPE),  # noqa: S108
    "hard link": link(f"{FOLDER}/link", "/etc/passwd", tarfile.LNKTYPE),
    "pipe": link(f"{FOLDER}/pipe", "", tarfile.FIFOTYPE),
    "device": link(f"{FOLDER}/device", "", tarfile.CHRTYPE),
}


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_writes_nothing(server, publish, root, tmp_path, kind):
    publish(tar_of((f"{FOLDER}/test_batch", b"x"), HOSTILE[kind]))
    with pytest.raises(DataError, match=rf"{ARCHIVE}: expected only files in {FOLDER}, got .*; nothing was unpacked"):
        download_cifar("cifar10", root, url=server.url)
    assert everything_in(tmp_path) == ["sets", f"sets/{ARCHIVE}"]


def test_an_absolute_path_writes_nothing(server, publish, root, tmp_path):
    publish(tar_of((f"{FOLDER}/test_batch", b"x"), (str(tmp_path / "evil"), b"x")))
    with pytest.raises(DataError, match=rf"expected only files in {FOLDER}, got /.*evil; nothing was unpacked"):
        download_cifar("cifar10", root, url=server.url)
    assert everything_in(tmp_path) == ["sets", f"sets/{ARCHIVE}"]


def test_an_archive_of_nothing(tmp_path):
    (tmp_path / "empty.tar.gz").write_bytes(tar_of())
    with pytest.raises(DataError, match=f"expected a tar archive of {FOLDER}, got a damaged one"):
        unpack(tmp_path / "empty.tar.gz", tmp_path / FOLDER)


@pytest.fixture
def two_files():
    """The bytes of an archive of two files that do not compress."""
    pixels = np.random.default_rng(0).bytes(20_000)
    return tar_of((f"{FOLDER}/a", pixels), (f"{FOLDER}/b", pixels))


def test_a_truncated_archive_leaves_nothing(tmp_path, two_files):
    path = tmp_path / "cut.tar.gz"
    for end in range(0, len(two_files) - 1000, 700):
        path.write_bytes(two_files[:end])
        with pytest.raises(DataError, match=rf"cut.tar.gz: expected a tar archive of {FOLDER}, got a damaged one"):
            unpack(path, tmp_path / FOLDER)
        assert names_in(tmp_path) == ["cut.tar.gz"]


def test_a_damaged_archive_is_never_another_error(tmp_path, two_files):
    # Changed bytes of a file, or a header that looks like the end, pass unseen here: md5 is what finds them.
    path, refused = tmp_path / "damaged.tar.gz", 0
    for place in [*range(80), *range(80, len(two_files), 150)]:
        path.write_bytes(two_files[:place] + b"\xff\x00\xff" + two_files[place + 3 :])
        try:
            unpack(path, tmp_path / FOLDER)
        except DataError:
            refused += 1
            assert names_in(tmp_path) == ["damaged.tar.gz"]
        else:
            assert {"a"} <= set(names_in(tmp_path / FOLDER)) <= {"a", "b"}
            shutil.rmtree(tmp_path / FOLDER)
    assert refused > 10


@pytest.mark.usefixtures("cifar10")
def test_what_an_earlier_kill_left_is_no_obstacle(server, root):
    stale = root / f".{FOLDER}.partial" / FOLDER
    stale.mkdir(parents=True)
    (stale / "stale").write_text("x")
    folder = download_cifar("cifar10", root, url=server.url)
    assert "stale" not in names_in(folder)
    assert names_in(root) == [FOLDER]
