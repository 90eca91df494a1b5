"""Reader for the pickle files of CIFAR that never runs code from the file."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from smoothed.errors import DataError


class _Refused(pickle.UnpicklingError):
    """The file contains an object that CIFAR files do not contain."""


# NumPy's own classes do not check the state that they unpickle, so that a damaged file could crash the process and a
# crafted one could do worse. These replacements accept only arrays of uint8, as in CIFAR's files.
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
            raise _Refused("an array of another type than uint8")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    # Pickle protocol 2 stores bytes as a call of _codecs.encode with Latin-1 text.
    if encoding != "latin1":
        raise _Refused(f"the encoding {encoding}")
    return text.encode("latin1")


_TOO_LARGE = (OverflowError, MemoryError)
_ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Uint8,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # name since NumPy 2
}


class _NumpyOnly(pickle.Unpickler):
    """Unpickler that accepts only the names in `_ALLOWED`."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - the signature of pickle
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def read_pickle(path: Path) -> dict[bytes, Any]:
    """Read a file of CIFAR's Python version.

    Args:
        path: path of the pickle file.

    Returns:
        Its dict, with bytes as keys; arrays are read-only NumPy arrays of uint8.

    Raises:
        DataError: the file is missing or truncated, contains objects other than plain values and arrays of uint8, or is
            not a dict.
    """
    try:
        with path.open("rb") as file:
            content = _NumpyOnly(file, encoding="bytes").load()
    except FileNotFoundError:
        raise DataError(
            f"{path}: expected a file of CIFAR's Python version, found none; download the data set again"
        ) from None
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
