"""The page of many results: it lists all of them, keeps the rules of other pages, and stays small."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from made_results import Page, evaluated
from small_results import KINDS, small_result
from smoothed.errors import ArgumentError, DataError
from smoothed.report.html import overview
from smoothed.report.html.overview import overview_page, write_overview
from smoothed.report.html.page import LARGEST


def all_kinds():
    return {f"the {kind} one": small_result(kind) for kind in KINDS}


def test_every_kind_is_listed_with_its_accuracies_and_has_its_parts():
    results = all_kinds()
    page = Page(overview_page(results, title="All kinds"))
    assert page.all("h1") == ["All kinds"]
    assert page.all("h2")[0] == "8 results"
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert {f"#verdict{number}" for number in range(8)} <= links
    assert {link.removeprefix("#") for link in links} <= ids
    for name, result in results.items():
        assert name in page.all("a")
        assert f"{name}: {result.model['name']}" in page.all("h2")
        assert " ".join(result.provenance["command"].split()) in page.all("dd")
    worst = next(row for row in results["the worst-case one"].rows[::-1] if row["attack"] == "worst case")
    assert f"{100 * worst['robust']['mean']:.1f} %" in page.text
    assert len(page.all("ul", class_="lights")) == 1
    assert page.data is None
    assert not page.all("script")
    assert "lacks" not in page.text
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in pairwise(headings))


def test_results_on_other_images_and_without_tensors_are_listed_too():
    made = {"few": evaluated(12), "many": evaluated(40), "bare": replace(evaluated(9), tensors={})}
    page = Page(overview_page(made, title="Three"))
    assert [text for text in page.all("td") if text.startswith("random images")] == [
        "random images, 12",
        "random images, 40",
        "random images, 9",
    ]


def test_a_large_page_leaves_parts_out_and_says_so(monkeypatch):
    results = all_kinds()
    sizes, missing = [], []
    whole = len(overview_page(results, title="x").encode())
    for limit in (whole + 1, whole, 30_000, 0):
        monkeypatch.setattr(overview, "LARGEST", limit)
        text = overview_page(results, title="x")
        sizes.append(len(text.encode()))
        missing += re.findall(r"it lacks the ([^.]*)\.", text) or [""]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < whole
    assert missing[:2] == ["", "charts"]
    assert missing[-1] == "charts, tables of attacks and tables of all rows"
    assert not re.search(r'<figure class="(chart|matrix)"', overview_page(results, title="x"))


@pytest.mark.slow
def test_a_page_of_two_hundred_results_is_below_the_limit():
    counts = (1, 2, 4, 8, 16, 32, 64)
    made = evaluated(20, counts=counts, votes=("prediction", "weighted", "soft"))
    assert len(overview_page({f"r{number}": made for number in range(200)}, title="many").encode()) < LARGEST


def test_refusals(tmp_path):
    with pytest.raises(ArgumentError, match="results: expected at least one result, got none"):
        overview_page({}, title="none")
    with pytest.raises(ArgumentError, match=r"path: expected a file name that ends in \.html"):
        write_overview(all_kinds(), tmp_path / "page.txt", title="x")
    broken = replace(small_result("evaluate"), rows=[{"accuracy": 0.5}])
    with pytest.raises(DataError, match="expected the fields of a result of the kind sweep or evaluate, got others"):
        overview_page({"sweep": small_result("sweep"), "broken": broken}, title="x")
