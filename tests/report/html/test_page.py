"""The page of every kind of result: well-formed, self-contained, accessible, escaped, and small enough."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import smoothed
from made_results import Page, evaluated
from small_results import KINDS, small_result
from smoothed.errors import ArgumentError, DataError, OutputError
from smoothed.report.html.page import LARGEST, MOST_IMAGES, report_page

WITH_IMAGES = set(KINDS) - {"train"}
EVIL = """</script><script>alert("x")</script><img src=x onerror='y'> & {{ 7 * 7 }}"""


MAKERS = [
    *(pytest.param(lambda kind=kind: small_result(kind), id=kind) for kind in KINDS),
    pytest.param(evaluated, id="made"),
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_page_is_well_formed_and_needs_nothing_else(make):
    text = report_page(make())
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not [tag for tag, _ in page.tags if tag in {"link", "iframe", "object", "embed", "base"}]
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "poster", "srcset"):
            value = attributes.get(name, "#")
            assert value.startswith("#") or (tag == "img" and value.startswith("data:image/png;base64,"))
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"@import|url\(|https?://", "".join(page.all("style")))
    assert "default-src 'none'" in next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)


@pytest.mark.parametrize("make", MAKERS)
def test_names_of_the_page_are_complete(make):
    """Every id is unique, every reference leads to one, and regions, graphics and fields have names."""
    page = Page(report_page(make()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        for name in ("aria-labelledby", "for"):
            assert attributes.get(name, ids[0]) in ids
        if "href" in attributes:
            assert attributes["href"].removeprefix("#") in ids
        if tag == "section":
            assert "aria-labelledby" in attributes
        if attributes.get("role") in {"region", "img", "listbox", "search"}:
            assert attributes["aria-label"]
        if tag == "svg" and attributes.get("aria-hidden") != "true":
            assert attributes["role"] == "img"
        if tag == "img":
            assert "alt" in attributes
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


@pytest.mark.parametrize("kind", KINDS)
def test_charts_with_intervals_name_them_in_their_legends(kind):
    text = report_page(small_result(kind))
    charts = re.findall(r'<figure class="chart">.*?</figure>', text, re.DOTALL)
    for chart in charts:
        legend = re.search(r'<ul class="legend">.*?</ul>', chart, re.DOTALL)[0]
        assert ("95 % interval" in legend) == ('class="whisker"' in chart)
    with_intervals = any('class="whisker"' in chart for chart in charts)
    assert with_intervals == (kind in {"certify", "check", "evaluate", "examples", "sweep", "worst-case"})


def test_the_columns_of_each_matrix_have_a_slider_and_a_button():
    page = Page(report_page(small_result("worst-case")))
    columns = [
        attributes["data-images"].split()
        for tag, attributes in page.tags
        if tag == "svg" and "data-images" in attributes
    ]
    assert [sorted(map(int, images)) for images in columns] == [list(range(12))] * 2
    places = [number for number, (_, has) in enumerate(page.tags) if has.get("class") == "filters chooser"]
    assert len(places) == len(columns)
    assert len({page.tags[place][1]["aria-label"] for place in places}) == 2
    for place in places:
        (label, _), (tag, slider), (control, button) = page.tags[place + 1 : place + 4]
        assert (label, page.texts[place + 1].strip()) == ("label", "Column")
        assert (tag, slider["type"], slider["min"], slider["max"]) == ("input", "range", "0", "11")
        assert (control, button["type"]) == ("button", "button")
        assert page.texts[place + 3] == "Show this image"


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_says_what_the_numbers_are(kind):
    result = small_result(kind)
    page = Page(report_page(result))
    provenance = dict(zip(page.all("dt"), page.all("dd"), strict=True))
    assert provenance["command"] == " ".join(result.provenance["command"].split())
    assert provenance["seed"] == str(result.provenance["seed"])
    assert provenance["weights"] == result.model["weights"]
    assert f"torch {result.provenance['torch']}" in provenance["versions"]
    assert "Threat model" in page.all("h3")
    assert (page.data is not None) == (kind in WITH_IMAGES)
    assert page.all("strong")


@pytest.mark.parametrize("kind", sorted(WITH_IMAGES))
def test_a_result_without_its_tensors_has_a_page_without_images(kind):
    result = small_result(kind)
    page = Page(report_page(replace(result, tensors={})))
    assert page.data is None
    assert result.model["name"] in page.text
    assert page.all("strong") or kind == "check"


OWN = {"noise": "gaussian", "sigma": 0.125, "sigma_normalized": 0.5, "vote": "soft", "num_samples": 8, "layer": None}


@pytest.mark.parametrize(
    ("own", "row", "note"),
    [
        (OWN, 8, "the accuracies here are those of the classifier's own: sigma 0.125 (0.5 normalised)."),
        ({**OWN, "vote": "weighted"}, 6, "the accuracies here are those of the classifier's own: sigma 0.125 (0.5"),
        (None, 2, "those of the first, sigma 0.25 (1 normalised): the classifier's own is not known."),
        (
            {**OWN, "sigma": 0.3, "sigma_normalized": None},
            2,
            "those of the first, sigma 0.25 (1 normalised): the classifier's own, sigma 0.3, is none of them.",
        ),
    ],
)
def test_the_verdict_of_several_sigmas_is_that_of_the_classifiers_own_or_says_which_it_is(own, row, note):
    """Rows: the base; then at sigma 0.25 and at 0.125 the prediction and the soft vote, each at M = 1 and 8."""
    result = evaluated(30, sigmas=(0.25, 0.125), own=own)
    page = Page(report_page(result))
    shown = [f"{100 * result.rows[number][images]:.1f} %" for number in (row, 0) for images in ("clean", "robust")]
    assert page.all("strong") == shown
    (about,) = page.all("p", class_="about")
    assert note in about
    main = page.data["results"][0]["classifiers"][page.data["results"][0]["main"]]
    assert f"{result.rows[row]['vote']} vote, sigma {result.rows[row]['sigma']}" in main["name"]
    assert result.rows[row]["num_samples"] == 8


def test_the_verdict_of_one_sigma_needs_no_choice():
    assert "Of several sigmas" not in report_page(evaluated(30, own=OWN))


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_escaped(kind):
    result = small_result(kind)

    def evil(value):
        if isinstance(value, dict):
            return {key: evil(each) for key, each in value.items()}
        return [evil(each) for each in value] if isinstance(value, list) else EVIL if isinstance(value, str) else value

    names = [f"{EVIL} {number}" for number in range(len(result.data["classes"]))]
    changed = replace(
        result,
        model={**evil(result.model), "weights": EVIL},
        data={**evil(result.data), "classes": names},
        provenance=evil(result.provenance),
        rows=[
            {name: EVIL if name in {"model", "meaning"} else value for name, value in row.items()}
            for row in result.rows
        ],
        comparisons=[replace(gain, name=EVIL, images=EVIL) for gain in result.comparisons],
    )
    text = report_page(changed)
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == (2 if kind in WITH_IMAGES else 0)
    assert "<img src=x" not in text
    assert "49" not in page.all("title")[0]
    assert " ".join(EVIL.split()) in page.text
    if page.data is not None:
        assert page.data["classes"] == names
        assert page.data["results"][0]["name"] == EVIL


@pytest.mark.slow
def test_a_page_of_200_images_is_small_and_has_the_most_telling_ones():
    result = evaluated(
        300, side=32, classes=10, counts=(1, 2, 4, 8, 16, 32, 64), votes=("prediction", "weighted", "soft")
    )
    text = report_page(result)
    assert len(text.encode()) < LARGEST == 5_000_000
    listed = Page(text).data["images"]
    assert len(listed) == MOST_IMAGES == 200
    # The first classifier after the base, at its largest M, on attacked images of all runs.
    last = next(number for number, row in enumerate(result.rows) if row["num_samples"] == 64)
    wrong = {
        kind: [rights.double().mean() <= 0.5 for rights in result.tensors[f"{kind}.right"][last].T]
        for kind in ("clean", "robust")
    }
    base = [rights.double().mean() <= 0.5 for rights in result.tensors["robust.right"][0].T]

    def rank(number):
        if base[number] != wrong["robust"][number]:
            return 0
        if wrong["robust"][number] and not wrong["clean"][number]:
            return 1
        return 2 if wrong["clean"][number] else 3

    ranks = [rank(image["number"]) for image in listed]
    assert ranks == sorted(ranks)
    assert sorted(map(rank, range(300)))[:200] == ranks


@pytest.mark.slow
def test_large_images_are_shrunk_until_the_page_is_small():
    text = report_page(evaluated(200, side=160))
    assert len(text.encode()) < LARGEST
    assert len(Page(text).data["images"]) >= 100


def test_a_page_is_written_atomically_to_an_html_file(tmp_path):
    result = small_result("evaluate")
    path = result.report(tmp_path / "deep" / "page.html")
    assert path == tmp_path / "deep" / "page.html"
    assert path.read_text(encoding="utf-8") == report_page(result)
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
    with pytest.raises(ArgumentError, match=r"path: expected a file name that ends in \.html or \.htm, got page\.json"):
        result.report(tmp_path / "page.json")
    with pytest.raises(ArgumentError, match="path: expected a path, got 3"):
        result.report(3)
    with pytest.raises(OutputError, match="could not be written"):
        result.report(path / "page.html")


def test_a_result_with_other_rows_is_an_error_of_one_line():
    with pytest.raises(DataError, match=r"result: expected the fields of a result of the kind evaluate, got others"):
        report_page(smoothed.Result("evaluate", [{"accuracy": 0.5}]))


def test_the_same_result_has_the_same_page():
    assert report_page(evaluated()) == report_page(evaluated())


def test_clean_images_alone_and_a_plain_network_have_pages():
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    images = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    clean = smoothed.evaluate(plain, images, attack="none")
    page = Page(report_page(clean))
    assert "No attack was run" in page.text
    assert all(
        len(step) == 1 for image in page.data["images"] for votes in image["results"][0]["votes"] for step in votes
    )
    quick = {"steps": 1, "restarts": 1, "eot_samples": (1,), "queries": 2, "resubmissions": (1,)}
    worst = smoothed.worst_case(plain, images, targets=1, selection_votes=1, **quick)
    page = Page(report_page(worst))
    assert "Attacks on the mean network" in page.all("h3")
    assert "Attacks on the smoothed classifier" not in page.all("h3")
