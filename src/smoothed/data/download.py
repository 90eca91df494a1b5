"""Download of CIFAR's official archives, with progress; it can be resumed, and the MD5 sum is checked."""

import gzip
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from smoothed.data.cifar import CIFARS, data_root
from smoothed.errors import DataError, OutputError
from smoothed.utils.checks import check_choice

OFFICIAL = "https://www.cs.toronto.edu/~kriz/"
BLOCK = 1 << 18
TIMEOUT_SECONDS = 60
RANGE_NOT_SATISFIABLE = 416
PARTIAL_CONTENT = 206

OnBytes = Callable[[int, int | None], None]
"""Called with the number of bytes received so far, and the total number if the server states it, else None."""


def download_cifar(
    name: str, root: Path | str | None = None, *, url: str | None = None, on_progress: OnBytes | None = None
) -> Path:
    """Download, check and unpack `cifar10` or `cifar100`, unless its folder exists.

    An interrupted download leaves a `.part` file, which the next call completes.

    Args:
        name: `cifar10` or `cifar100`.
        root: folder for data sets; None for `$SMOOTHED_DATA` or the cache folder.
        url: URL of the archive; None for the official one.
        on_progress: function called after each block of data.

    Returns:
        Folder of the data set.

    Raises:
        ArgumentError: the name is unknown.
        DataError: the connection failed, or the archive has the wrong MD5 sum or a path outside its folder.
        OutputError: the folder cannot be written, or the disk is full.
    """
    check_choice(name, CIFARS, "name")
    cifar, parent = CIFARS[name], data_root(root)
    folder, archive = parent / cifar.folder, parent / cifar.archive
    if folder.is_dir():
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if not archive.is_file():
            partial = archive.with_name(archive.name + ".part")
            _fetch(url or OFFICIAL + cifar.archive, partial, on_progress or _ignore_progress)
            _check_md5(partial, cifar.md5)
            partial.rename(archive)
        else:
            _check_md5(archive, cifar.md5)
        unpack(archive, folder)
    except OSError as error:
        raise OutputError(f"{parent}: could not be written ({error.strerror or error})") from error
    archive.unlink()
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive that contains a single folder with the name of `folder`, completely or not at all.

    Args:
        archive: path of the archive.
        folder: folder to create.

    Raises:
        DataError: the file is not a complete tar archive, or contains a path outside that folder, a link or a device.
    """
    staging = folder.with_name(f".{folder.name}.partial")
    _remove(staging)
    try:
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                parts = Path(member.name).parts
                if not (member.isfile() or member.isdir()) or parts[:1] != (folder.name,) or ".." in parts:
                    raise DataError(
                        f"{archive}: expected only files in {folder.name}, got {member.name}; nothing was unpacked"
                    )
            # Python 3.11.0 to 3.11.3 have no filters; the checks above reject the same members.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(staging)  # noqa: S202 - all members were checked
        (staging / folder.name).rename(folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, FileNotFoundError) as error:
        raise DataError(
            f"{archive}: expected a tar archive of {folder.name}, got a damaged one ({error}); delete it and try again"
        ) from None
    finally:
        _remove(staging)


def _ignore_progress(received: int, total: int | None) -> None:
    del received, total


def _fetch(url: str, partial: Path, on_progress: OnBytes) -> None:
    received = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={received}-"} if received else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - https, or the user's
            resumed = response.status == PARTIAL_CONTENT
            length = response.headers.get("Content-Length")
            received = received if resumed else 0
            total = received + int(length) if length else None
            with partial.open("ab" if resumed else "wb") as file:
                received = _copy(response, file, received, total, on_progress)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE:  # this status means that the partial file is complete
            raise DataError(f"{url}: expected the archive, got HTTP status {error.code} {error.reason}") from None
        return
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{url}: no connection ({reason}); run the command again to continue") from None
    if total is not None and received < total:
        raise DataError(f"{url}: expected {total} bytes, got {received}; run the command again to continue")


def _copy(response: BinaryIO, file: BinaryIO, received: int, total: int | None, on_progress: OnBytes) -> int:
    while block := response.read(BLOCK):
        file.write(block)
        received += len(block)
        on_progress(received, total)
    return received


def _check_md5(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != expected:
        path.unlink()
        raise DataError(
            f"{path.name}: expected MD5 sum {expected}, got {found}; the file was deleted, run the command again"
        )


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
