"""docs/results-format.md describes every field and tensor of every kind of result, and no other."""

import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from small_results import KINDS, small_result
from smoothed.evaluation.results import KINDS as ALL_KINDS
from smoothed.training.config import TrainingConfig

PAGE = Path(__file__).parents[2] / "docs" / "results-format.md"

# Parts of a result that a table of its kind describes; other tables are found by links.
PARTS = ("rows", "setting", "summary", "model", "data", "provenance")

# Of sizes that are not those of the page's own words.
SCALARS = {
    "text": str,
    "integer": int,
    "number": (int, float),
    "true or false": bool,
    "object": dict,
    "list of objects": list,
    "list of text": list,
    "list of numbers": list,
    "list of integers": list,
    "interval": list,
}


@cache
def tables():
    """The tables of the page by the anchor of their heading: lists of lines, each a list of cells."""
    found, anchor = {}, None
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            anchor = re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
            assert anchor not in found, f"two headings {line}"
            found[anchor] = []
        elif line.startswith("| ") and not line.startswith(("| field |", "| tensor |")):
            found[anchor].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def described(anchor):
    """The fields of a table, with those of the tables that it includes: their types by name."""
    types = {}
    for name, *rest in tables()[anchor]:
        included = re.fullmatch(r"\[.*\]\(#(.*)\)", name)
        new = described(included[1]) if included else dict.fromkeys(re.findall(r"`(.+?)`", name), rest[0])
        assert not types.keys() & new.keys()
        types |= new
    return types


def check(value, anchor, place):
    """Check an object against a table, and all objects in it against theirs."""
    types = described(anchor)
    assert set(value) == set(types), f"{place}: {set(value) ^ set(types)}"
    for name, kind in types.items():
        inner, link = value[name], re.search(r"\(#(.*)\)", kind)
        if inner is None:
            continue
        if link is None:
            assert isinstance(inner, SCALARS[kind]), f"{place}.{name}: {kind}, got {inner!r}"
        elif kind.startswith("list of"):
            for each in inner:
                check(each, link[1], f"{place}.{name}[]")
        elif kind.endswith("by N"):
            for number, each in inner.items():
                assert int(number) > 0
                check(each, link[1], f"{place}.{name}.N")
        else:
            check(inner, link[1], f"{place}.{name}")


def test_kinds_are_described():
    assert KINDS == ALL_KINDS
    text = PAGE.read_text(encoding="utf-8")
    assert {f"kind-{kind}" for kind in KINDS} == {anchor for anchor in tables() if anchor.startswith("kind-")}
    links = set(re.findall(r"\]\(#(.*?)\)", text))
    assert links <= set(tables())
    files = re.findall(r"\]\(([^#)]+)\)", text)
    assert all((PAGE.parent / file).is_file() for file in files)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described_and_exists(kind):
    values = small_result(kind).to_json()
    assert set(values) == set(described("every-result"))
    for part in PARTS:
        anchor = f"{part}-of-{kind}"
        if kind == "train" and part == "setting":
            assert set(values[part]) == {field.name for field in fields(TrainingConfig)}
        elif anchor not in tables() and part in {"setting", "rows", "summary"}:
            assert part == "summary"
            assert values[part] == {}
        else:
            for each in values[part] if part == "rows" else [values[part]]:
                check(each, anchor if anchor in tables() else part, f"{kind}.{part}")
    for each in values["comparisons"]:
        check(each, "comparisons", f"{kind}.comparisons")
    assert values["comparisons"] or kind not in {"evaluate", "examples", "worst-case"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_described_and_exists(kind):
    """With its type and the number and the sizes of its axes, which have the same size in all tensors."""
    result = small_result(kind)
    found = {}
    for names, shape, dtype, _ in tables().get(f"tensors-of-{kind}", []):
        for name in re.findall(r"`(.+?)`", names):
            found[name] = shape.strip("()").split(", "), dtype
    assert set(found) == set(result.tensors)
    rows = [row.get("network", "").partition(" ")[0] for row in result.rows]
    sizes = {"images": result.data["images"], "rows": len(result.rows), "K": 2}
    for name, (axes, dtype) in found.items():
        tensor = result.tensors[name]
        assert str(tensor.dtype) == f"torch.{dtype}", name
        assert len(axes) == tensor.ndim, name
        for axis, size in zip(axes, tensor.shape, strict=True):
            expected = (
                rows.count(name.partition(".")[0]) if axis == "rows of the network" else sizes.setdefault(axis, size)
            )
            assert size == expected, f"{name}: {axis}"
    if "kept" in sizes:
        assert sizes["kept"] == result.setting.get("kept_images", 3)
