"""Read the pickles of CIFAR's official files without running what else a pickle could hold."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from smoothed.errors import DataError


def _allowed() -> dict[tuple[str, str], Any]:
    reconstruct = np.empty(0).__reduce__()[0]  # numpy moved its module between 1 and 2
    names: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[module, "_reconstruct"] = reconstruct
    return names


def _encode(text: str, encoding: str) -> bytes:
    # Protocol 2 writes bytes as a call of _codecs.encode on Latin-1 text; nothing else of codecs is needed.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding}")
    return text.encode("latin1")


class _NumpyOnly(pickle.Unpickler):
    """Resolves the names of numpy arrays alone."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - the signature of pickle
        if (module, name) == ("_codecs", "encode"):
            return _encode
        try:
            return _allowed()[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None


def read_pickle(path: Path) -> dict[bytes, Any]:
    """The dict in a file of CIFAR's python version; its keys are bytes, its arrays numpy's.

    Raises:
        DataError: the file is missing, truncated, names anything but numpy arrays, or holds no dict.
    """
    try:
        with path.open("rb") as file:
            content = _NumpyOnly(file, encoding="bytes").load()
    except FileNotFoundError:
        raise DataError(f"{path}: expected a file of CIFAR's python version, found none; download it again") from None
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: expected numpy arrays and plain values, got {error}; do not trust this file"
        ) from None
    except (EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise DataError(f"{path}: truncated or damaged ({error}); download it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a dict, got {type(content).__name__}; this is not a CIFAR file")
    return content
