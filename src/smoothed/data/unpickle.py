"""Read the pickles of CIFAR's official files without running what else a pickle could hold."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from smoothed.errors import DataError


class _Refused(pickle.UnpicklingError):
    """The file names something that a CIFAR file does not hold."""


# Numpy's own classes trust the state that they are given: a damaged file could crash the process, a crafted one do
# worse. These take in their place what CIFAR's files hold, arrays of uint8.
class _Uint8:
    def __init__(self, name: bytes | str, *_: object) -> None:
        if name not in (b"u1", "u1"):
            raise _Refused(f"an array of {name!r}")

    def __setstate__(self, state: object) -> None:
        del state


class _Array:
    values: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        if not isinstance(kind, _Uint8) or not isinstance(raw, bytes):
            raise _Refused("an array of something else than bytes")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    # Protocol 2 writes bytes as a call of _codecs.encode on Latin-1 text; nothing else of codecs is needed.
    if encoding != "latin1":
        raise _Refused(f"the encoding {encoding}")
    return text.encode("latin1")


_TOO_LARGE = (OverflowError, MemoryError)
_ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Uint8,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # its name since numpy 2
}


class _NumpyOnly(pickle.Unpickler):
    """Resolves the names of numpy arrays alone."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - the signature of pickle
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def read_pickle(path: Path) -> dict[bytes, Any]:
    """The dict in a file of CIFAR's python version; its keys are bytes, its arrays numpy's, uint8 and read-only.

    Raises:
        DataError: the file is missing, truncated, names anything but arrays of uint8, or holds no dict.
    """
    try:
        with path.open("rb") as file:
            content = _NumpyOnly(file, encoding="bytes").load()
    except FileNotFoundError:
        raise DataError(f"{path}: expected a file of CIFAR's python version, found none; download it again") from None
    except _Refused as error:
        raise DataError(
            f"{path}: expected arrays of uint8 and plain values, got {error}; do not trust this file"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: could not be read ({error.strerror or error})") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, *_TOO_LARGE) as error:
        raise DataError(f"{path}: truncated or damaged ({error}); download it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a dict, got {type(content).__name__}; this is not a CIFAR file")
    return {key: value.values if isinstance(value, _Array) else value for key, value in content.items()}
