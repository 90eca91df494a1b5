"""The public face: what it names exists, and the floors of the house hold."""

import ast
from pathlib import Path

import smoothed

SOURCE = Path(smoothed.__file__).parent

# Floor by floor, from the ground: a file imports from its own floor and from those below.
FLOORS = [
    (
        "errors",
        "checks",
        "files",
        "randomness",
        "modes",
        "devices",
        "noise",
        "votes",
        "tally",
        "statistics",
        "models",
        "data",
    ),
    ("injection", "smoothing", "checkpoint"),
    ("attacks",),
    ("evaluation", "training"),
    ("report",),
    ("cli",),
]


def test_all_is_sorted_and_true():
    assert smoothed.__all__ == sorted(smoothed.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(smoothed, name) for name in smoothed.__all__)
    imported = {
        alias.asname or alias.name
        for node in ast.parse((SOURCE / "__init__.py").read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(smoothed.__all__)


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
