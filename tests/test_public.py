"""The public face: what it names exists, and the floors of the house hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import smoothed

SOURCE = Path(smoothed.__file__).parent

# Floor by floor, from the ground: a file imports from its own floor and from those below.
FLOORS = [
    (
        "errors",
        "checks",
        "files",
        "counter_based",
        "randomness",
        "modes",
        "memory",
        "devices",
        "noise",
        "votes",
        "tally",
        "statistics",
        "tracing",
        "processes",
        "probe",
        "models",
        "data",
    ),
    (
        "injection",
        "one_draw",
        "stopping",
        "voting",
        "sharing",
        "smoothing",
        "certification",
        "checkpoint",
        "fused_weights",
        "fusing",
        "fast",
    ),
    ("attacks",),
    ("evaluation", "training"),
    ("report",),
    ("cli",),
]


def test_all_is_sorted_and_true():
    assert smoothed.__all__ == sorted(smoothed.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(smoothed, name) for name in smoothed.__all__)
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    (typed,) = (node.body for node in tree.body if isinstance(node, ast.If))
    imported = {(node.module, alias.name) for node in typed for alias in node.names}
    assert imported == {(home, name) for home, names in smoothed._HOMES.items() for name in names}
    assert {name for _, name in imported} == set(smoothed.__all__) <= set(dir(smoothed))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = smoothed.nothing


def test_the_package_is_imported_without_torch():
    code = "import sys, smoothed, smoothed.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_room_has_a_floor_and_nobody_reaches_up():
    floor_of = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    rooms = {path.stem for path in SOURCE.iterdir() if not path.name.startswith("_") and path.name != "py.typed"}
    assert rooms == set(floor_of)
    for path in SOURCE.rglob("*.py"):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room.startswith("_"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smoothed."):
                other = node.module.split(".")[1]
                assert floor_of[other] <= floor_of[room], f"{path.name} imports {node.module} from a floor above"
