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
    ("training", "report"),
    ("cli",),
]

def imports():
    """Each import of the package's own modules: (importing module, imported module), as dotted names."""
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smoothed."):
                yield parts, tuple(node.module.split(".")[1:])


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
