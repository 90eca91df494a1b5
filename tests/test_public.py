"""The public names exist, and no module imports against the layers of packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import smoothed

SOURCE = Path(smoothed.__file__).parent

# The packages, layer by layer from the bottom: each imports from its own layer and from those below.
LAYERS = [
    ("errors",),
    ("rng", "utils"),
    ("data", "models", "injection", "attacks"),
    ("checkpoint", "acceleration"),
    ("smoothing",),
    ("evaluation",),
    ("report",),
    ("training",),
    ("api",),
    ("paper", "serve"),
    ("cli",),
]

# Inside these packages each module imports from those before it (and from its own package below it) alone.
ORDER = {
    "smoothing": (
        "votes",
        "tally",
        "input_noise",
        "stopping",
        "noisy_classifier",
        "sampling",
        "sharding",
        "classifier",
        "config",
        "certification",
    ),
    "evaluation": (
        "streams",
        "provenance",
        "results",
        "resume",
        "progress",
        "kept_votes",
        "fresh_votes",
        "correctness",
        "paper_protocol",
        "sweep",
        "certified",
        "worst_case",
        "gradient_masking",
        "saved_examples",
    ),
}


# The only imports that run upward, each inside a function: a result prints and draws itself, and writes its page.
UPWARD = {
    (("evaluation", "results"), ("report", "result"), "result_text"),
    (("evaluation", "results"), ("report", "result"), "plot_result"),
    (("evaluation", "results"), ("report", "html", "page"), "write_report"),
}


def imports():
    """Each import of the package's own modules, but for `UPWARD`: (importing module, imported module), as parts."""
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smoothed."):
                module = tuple(node.module.split(".")[1:])
                if any((parts, module, alias.name) not in UPWARD for alias in node.names):
                    yield parts, module


def test_all_is_sorted_and_true():
    assert smoothed.__all__ == sorted(smoothed.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(smoothed, name) for name in smoothed.__all__)
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    (typed,) = (node.body for node in tree.body if isinstance(node, ast.If))
    imported = {alias.asname or alias.name for node in typed for alias in node.names}
    assert imported == set(smoothed.__all__) <= set(dir(smoothed))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = smoothed.nothing


def test_the_package_is_imported_without_torch():
    code = "import sys, smoothed, smoothed.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_commands_are_built_without_what_they_need_only_to_run():
    """Help and completion build all commands. The import of scipy.stats would take a second of it."""
    code = (
        "import sys; from smoothed.cli.main import build_app; build_app();"
        "sys.exit(any(name in sys.modules for name in ('scipy.stats', 'matplotlib', 'jinja2', 'fastapi')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_package_has_a_layer_and_imports_from_below():
    layer_of = {package: number for number, packages in enumerate(LAYERS) for package in packages}
    packages = {path.stem for path in SOURCE.iterdir() if not path.name.startswith("_") and path.name != "py.typed"}
    assert packages == set(layer_of)
    wrong = [
        f"{'.'.join(parts)} imports {'.'.join(module)}, a layer above"
        for parts, module in imports()
        if not parts[0].startswith("_") and layer_of[module[0]] > layer_of[parts[0]]
    ]
    assert not wrong


def test_imports_that_run_upward_are_in_functions():
    """All of those that are named exist, and none of them runs when its module is imported."""
    found = set()
    for parts in {parts for parts, _, _ in UPWARD}:
        tree = ast.parse(SOURCE.joinpath(*parts).with_suffix(".py").read_text())
        inside = {
            node for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smoothed."):
                for alias in node.names:
                    entry = parts, tuple(node.module.split(".")[1:]), alias.name
                    if entry in UPWARD:
                        assert node in inside
                        found.add(entry)
    assert found == UPWARD


@pytest.mark.parametrize("package", ORDER)
def test_modules_of_a_package_are_in_order(package):
    place = {name: number for number, name in enumerate(ORDER[package])}
    found = {path.stem for path in (SOURCE / package).iterdir() if not path.name.startswith("_")}
    assert found == set(place)
    wrong = [
        f"{'.'.join(parts)} imports {'.'.join(module)}, which comes after it"
        for parts, module in imports()
        if parts[0] == module[0] == package and len(parts) > 1 and len(module) > 1 and parts[1] in place
        if place[module[1]] > place[parts[1]]
    ]
    assert not wrong


def test_no_two_public_classes_share_a_name():
    homes = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(SOURCE)))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}
