"""Objects of users' code: what is found, what is refused, and the import path as it was before."""

import itertools
import sys

import pytest

from smoothed.errors import ArgumentError
from smoothed.utils.imports import import_object, is_object_name

NUMBERS = itertools.count()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a module into the current folder and returns its name, which no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before, known = list(sys.path), set(sys.modules)

    def module(text):
        name = f"users_module_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield module
    assert sys.path == before
    for name in set(sys.modules) - known:
        if name.startswith("users_"):
            del sys.modules[name]


def test_an_object_of_a_module_in_the_current_folder(write, tmp_path):
    name = write("import sys\nclass A:\n    class B:\n        c = 5\npath = list(sys.path)")
    assert import_object(f"{name}:A.B.c", "model") == 5
    path = import_object(f"{name}:path", "model")
    assert path[-1] == str(tmp_path)  # after all installed packages, so that it hides none of them
    assert str(tmp_path) not in sys.path


def test_an_object_of_a_package(write, tmp_path):
    folder = tmp_path / f"{write('')}_package"
    folder.mkdir()
    (folder / "inner.py").write_text("from . import other\nvalue = other.value + 1")
    (folder / "other.py").write_text("value = 1")
    assert import_object(f"{folder.name}.inner:value", "data") == 2


def test_an_installed_module_comes_first(write, tmp_path):
    write("")
    (tmp_path / "pytest.py").write_text("raise RuntimeError")
    assert import_object("pytest:fixture", "model") is pytest.fixture


def test_entries_that_the_users_code_adds_stay(write, tmp_path):
    name = write(f"import sys\nsys.path.append({str(tmp_path)!r})\nsys.path.append('users_entry')")
    import_object(f"{name}:sys", "model")
    assert sys.path[-2:] == [str(tmp_path), "users_entry"]
    del sys.path[-2:]


@pytest.mark.parametrize(
    ("text", "attribute", "message"),
    [
        (
            "factory = 1",
            "factroy",
            r"attack: expected the name of something in {}, got factroy, which is not there; did you mean fac",
        ),
        ("class A: pass", "A.b", r"attack: expected the name of something in {}\.A, got b, which is not there$"),
        (
            "import no_such_module",
            "a",
            r"a module that can be imported, .* raises ModuleNotFoundError: No module named 'no",
        ),
        ("raise ValueError('first\\nsecond')", "a", r"got {}:a, which raises ValueError: first$"),
        ("assert False", "a", r"which raises AssertionError$"),
        ("import sys; sys.exit('bye')", "a", r"which raises SystemExit: bye$"),
        ("def f(:", "a", r"which raises SyntaxError: "),
        ("def __getattr__(name): raise OSError('lazy')", "a", r"got {}:a, which raises OSError: lazy$"),
    ],
)
def test_errors_name_the_cause(text, attribute, message, write):
    name = write(text)
    with pytest.raises(ArgumentError, match=message.format(name, name)) as caught:
        import_object(f"{name}:{attribute}", "attack")
    assert "\n" not in str(caught.value)
    assert caught.value.argument == "attack"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "users_none:a",
            "model: expected a module .*, got users_none:a, but there is no module users_none; it is looked",
        ),
        ("json.users_none:a", r"there is no module json\.users_none"),
        ("json", "model: expected a name of the form package.module:name, got 'json'$"),
        ("json:", "of the form"),
        (":a", "of the form"),
        ("a:b:c", "of the form"),
        ("my-module:a", "of the form"),
        ("nets/mine.py:build", r"got 'nets/mine.py:build'; write nets\.mine:build$"),
        ("imagefolder:photos", "of the form"),
    ],
)
@pytest.mark.usefixtures("write")
def test_names_that_cannot_be_resolved(name, message):
    with pytest.raises(ArgumentError, match=message):
        import_object(name, "model")


@pytest.mark.parametrize(
    ("text", "is_name"),
    [
        ("timm:create_model", True),
        ("package.module:Class.method", True),
        ("_a1:_b", True),
        ("resnet20-cni-w", False),
        ("model.safetensors", False),
        ("zoo/name", False),
        ("imagefolder:photos", False),
        ("imagefolder:photos@64", False),
        ("C:\\nets\\mine.safetensors", False),
        ("C:/nets/mine", False),
        ("a.b:", False),
        (":b", False),
        ("a b:c", False),
        ("a:b:c", False),
        ("", False),
    ],
)
def test_shapes_of_names(text, is_name):
    assert is_object_name(text) is is_name


def test_a_file_of_this_name_is_no_object_name(write, tmp_path):
    write("")
    assert is_object_name("users_file:one")
    (tmp_path / "users_file:one").touch()
    assert not is_object_name("users_file:one")
