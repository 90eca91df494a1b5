"""Objects of users' own code by their names, `package.module:name`."""

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smoothed.errors import ArgumentError

_NOT_MODULES = {"imagefolder"}
"""Prefixes with which other names of this package have the same shape: `imagefolder:photos` is a data set."""


def is_object_name(text: str) -> bool:
    """Whether `text` has the shape `package.module:name` and is not the path of an existing file or folder.

    Names of data sets such as `imagefolder:photos` and Windows paths such as `C:/data` are no object names. The module
    is not looked for.
    """
    module, colon, attribute = text.partition(":")
    is_shaped = bool(colon) and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))
    return is_shaped and module not in _NOT_MODULES and not Path(text).exists()


def import_object(name: str, argument: str) -> Any:  # noqa: ANN401 - any object of the user's
    """Import the object that a name refers to. This runs the code of its module.

    The module is looked for on the import path and then in the current folder.

    Args:
        name: `package.module:name`; after the colon, `class.attribute` reaches into an object.
        argument: name of the argument in error messages.

    Raises:
        ArgumentError: `name` does not have this shape, there is no such module or attribute, or the module raises an
            error when it is imported.

    Example:
        >>> import_object("pathlib:Path.cwd", "model")() == Path.cwd()
        True
    """
    module_name, _, path = name.partition(":")
    if not is_object_name(name):
        shape = "a name of the form package.module:name"
        as_module = module_name.removesuffix(".py").strip("./").replace("/", ".")
        is_file = as_module != module_name and all(part.isidentifier() for part in (*as_module.split("."), path))
        raise ArgumentError(argument, shape, repr(name), f"write {as_module}:{path}" if is_file else "")
    with current_folder_importable():
        found = _import_module(module_name, name, argument)
        walked = module_name
        for part in path.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                similar = difflib.get_close_matches(part, [key for key in dir(found) if not key.startswith("_")])
                hint = f"did you mean {' or '.join(similar)}?" if similar else ""
                raise ArgumentError(
                    argument, f"the name of something in {walked}", f"{part}, which is not there", hint
                ) from None
            except Exception as error:  # modules with lazy attributes run code here
                raise ArgumentError(
                    argument, f"an attribute of {walked}", f"{name}, which raises {error_summary(error)}"
                ) from error
            walked += f".{part}"
    return found


def _import_module(module_name: str, name: str, argument: str) -> Any:  # noqa: ANN401 - a module
    importlib.invalidate_caches()  # a file may have been written a moment ago
    expected = "a module that can be imported"
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            hint = "it is looked for among the installed packages and in the current folder"
            raise ArgumentError(argument, expected, f"{name}, but there is no module {error.name}", hint) from None
        raise ArgumentError(argument, expected, f"{name}, which raises {error_summary(error)}") from error
    except (Exception, SystemExit) as error:
        raise ArgumentError(argument, expected, f"{name}, which raises {error_summary(error)}") from error


def error_summary(error: BaseException) -> str:
    """Return the type of an error and the first line of its message, for example `ValueError: too many`."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Append the current folder to `sys.path` inside the block, if it is not there, and take it away afterwards."""
    try:
        folder = str(Path.cwd())
    except OSError:  # the folder was deleted
        folder = ""
    if not folder or "" in sys.path or folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        # Entries that the user's code added stay, so the one of this function is found by its identity.
        sys.path[:] = [entry for entry in sys.path if entry is not folder]
