"""Whatever interrupts a write, a reader finds the old file or the new one."""

import os
import resource
import signal
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

from smoothed.errors import OutputError
from smoothed.utils.files import require_writable, write_atomically, write_text


@pytest.fixture
def old(tmp_path):
    """A file that is to be replaced, alone in its folder."""
    path = tmp_path / "rows.json"
    path.write_text("old")
    return path


def is_as_it_was(path):
    return path.read_text() == "old" and [child.name for child in path.parent.iterdir()] == [path.name]


def half_then(error):
    def write(partial):
        partial.write_text("ne")
        raise error

    return write


@contextmanager
def files_of_at_most(size):
    """Let the system refuse to write more bytes than `size` to a file, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_replaces_the_file(old):
    assert write_text(str(old), "new \N{SNOWMAN}") == old
    assert old.read_bytes() == b"new \xe2\x98\x83"
    assert len(list(old.parent.iterdir())) == 1


def test_makes_parent_folders(tmp_path):
    path = write_text(tmp_path / "a" / "b" / "rows.json", "new")
    assert path.read_text() == "new"


def test_the_temporary_file_lies_beside_and_ends_as_the_path(old):
    seen = []

    def write(partial):
        seen.append(partial)
        partial.write_text("new")

    write_atomically(old, write)
    assert seen[0].parent == old.parent
    assert seen[0].suffix == ".json"
    assert seen[0] != old


def test_the_old_file_is_there_until_the_new_one_is_whole(old):
    def write(partial):
        partial.write_text("new")
        assert old.read_text() == "old"

    write_atomically(old, write)
    assert old.read_text() == "new"


def test_a_full_disk_leaves_the_old_file(old):
    def write(partial):
        partial.write_text("ne")
        with Path("/dev/full").open("w") as file:
            file.write("w")

    with pytest.raises(OutputError, match=r"rows.json: could not be written \(No space left on device\)"):
        write_atomically(old, write)
    assert is_as_it_was(old)


def test_a_write_that_the_system_cuts_short_leaves_the_old_file(old):
    with files_of_at_most(1000), pytest.raises(OutputError, match=r"could not be written \(File too large\)"):
        write_text(old, "n" * 5000)
    assert is_as_it_was(old)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), RuntimeError("a bug"), MemoryError()])
def test_anything_else_passes_and_leaves_the_old_file(old, error):
    with pytest.raises(type(error)) as caught:
        write_atomically(old, half_then(error))
    assert caught.value is error
    assert is_as_it_was(old)


def test_a_kill_leaves_the_old_file_and_the_next_write_works(old):
    def write(partial):
        partial.write_text("ne")
        os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads; the child only writes and dies
        child = os.fork()
    if child == 0:
        try:
            write_atomically(old, write)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert old.read_text() == "old"
    write_text(old, "new")
    assert old.read_text() == "new"


def test_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "rows.json").mkdir()
    with pytest.raises(OutputError, match=r"rows.json: could not be written \(Is a directory\)"):
        write_text(tmp_path / "rows.json", "new")
    assert [child.name for child in tmp_path.iterdir()] == ["rows.json"]


def test_a_file_in_place_of_the_folder(old):
    with pytest.raises(OutputError, match=r"could not be written \((File exists|Not a directory)\)"):
        write_text(old / "rows.json", "new")
    assert is_as_it_was(old)


def test_a_folder_that_nobody_may_write():
    with pytest.raises(OutputError, match=r"/proc/rows\.json: could not be written"):
        write_text("/proc/rows.json", "new")


def test_a_writer_that_writes_nothing(old):
    with pytest.raises(OutputError, match="No such file"):
        write_atomically(old, lambda _: None)
    assert is_as_it_was(old)


def test_require_writable_says_so_before_the_work(tmp_path):
    require_writable(tmp_path / "deep" / "rows.json")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "rows.json"):
        with pytest.raises(OutputError, match="could not be written"):
            require_writable(path)


@pytest.mark.parametrize(("mask", "permissions"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_file_has_the_permissions_of_any_new_file(mask, permissions, tmp_path):
    def private(partial):
        partial.write_text("new")
        partial.chmod(0o400)

    before = os.umask(mask)
    try:
        path = write_atomically(tmp_path / "rows.json", private)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == permissions
    assert path.read_text() == "new"
