"""Two results side by side: refused on other images, and paired tests computed anew image by image."""

import math
from dataclasses import replace

import pytest
import torch

from made_results import Page, evaluated
from small_results import small_result
from smoothed.errors import ArgumentError
from smoothed.report.html.comparison import ChosenRow, check_same_images, pair_lines, sigma_of_normalized
from smoothed.report.html.page import report_page


@pytest.fixture(scope="module")
def results():
    return evaluated(30, seed=0, name="first"), evaluated(30, seed=5, name="second", votes=("soft",))


def paired(before, after):
    """Gain, numbers of won and lost images and two-sided p-value of the sign test, from shares of right runs."""
    won = sum(b < a for b, a in zip(before, after, strict=True))
    lost = sum(b > a for b, a in zip(before, after, strict=True))
    tail = sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1)) / 2 ** (won + lost)
    gain = sum(a - b for b, a in zip(before, after, strict=True)) / len(before)
    return gain, won, lost, min(1.0, 2 * tail)


def test_every_pair_is_tested_image_by_image(results):
    first, second = results
    lines = pair_lines(first, second)
    # The first vote of each at its largest M, the base of both, and the soft vote at both Ms.
    rows = [(2, 2), (0, 0), (3, 1), (4, 2)]
    assert len(lines) == 2 * len(rows)
    for number, line in enumerate(lines):
        before, after = rows[number // 2]
        kind = ("clean", "robust")[number % 2]
        shares = [
            result.tensors[f"{kind}.right"][row].double().mean(0).tolist()
            for result, row in zip(results, (before, after), strict=True)
        ]
        gain, won, lost, p = paired(*shares)
        assert line.gain.gain == f"{100 * gain:+.1f}"
        assert (line.gain.won, line.gain.lost) == (str(won), str(lost))
        assert line.gain.p == ("p < 0.001" if p < 0.001 else f"p = {p:.2g}")
        assert line.first == f"{100 * sum(shares[0]) / 30:.1f} %"
        assert line.second == f"{100 * sum(shares[1]) / 30:.1f} %"
        assert line.gain.images == ("clean images", "PGD-7")[number % 2]
    assert lines[0].gain.name == (
        "first: prediction vote, sigma 0.25 (1 normalised), M = 8; second: soft vote, sigma 0.25 (1 normalised), M = 8"
    )


OWN = {"noise": "gaussian", "sigma": 0.12499, "sigma_normalized": 0.5, "vote": "soft", "num_samples": 8, "layer": None}


def several(seed, **options):
    """A result with rows 1 to 12: two sigmas, each with two votes, each at three M."""
    return evaluated(30, seed=seed, sigmas=(0.25, 0.125), counts=(1, 4, 8), **options)


def gain_of(results, rows, kind="robust"):
    before, after = (
        result.tensors[f"{kind}.right"][row].double().mean(0).tolist()
        for result, row in zip(results, rows, strict=True)
    )
    return f"{100 * paired(before, after)[0]:+.1f}"


@pytest.mark.parametrize(
    ("row", "of_both"),
    [
        ((None, None, None), (3, 3)),  # the first vote at the largest M
        (("soft", None, None), (6, 6)),
        ((None, 0.125, None), (9, 9)),
        (("soft", 0.125, 4), (11, 11)),
        ((None, None, 1), (1, 1)),
        (("none", None, None), (0, 0)),
        ((("none", "soft"), (0.0, 0.125), (1, 4)), (0, 11)),
    ],
)
def test_a_row_can_be_chosen_of_each_result(row, of_both):
    both = several(0), several(5)
    parts = [part if isinstance(part, tuple) else (part, part) for part in row]
    lines = pair_lines(*both, tuple(ChosenRow(*(part[number] for part in parts)) for number in (0, 1)))
    assert [lines[number].gain.gain for number in (0, 1)] == [
        gain_of(both, of_both, kind) for kind in ("clean", "robust")
    ]
    if of_both == (11, 11):
        assert len(lines) == 2  # no other row is what was chosen
    if of_both == (6, 6):  # the soft vote at both sigmas and at every M
        assert len(lines) == 2 * 6


def test_the_classifiers_own_row_comes_first():
    both = several(0, own=OWN), several(5, own={**OWN, "vote": "weighted"})
    # The own sigma is the second one to four digits; of the votes, soft was evaluated, and weighted was not.
    assert pair_lines(*both)[1].gain.gain == gain_of(both, (12, 9))
    unknown = several(0, own={**OWN, "sigma": 0.5}), several(5)
    assert pair_lines(*unknown)[1].gain.gain == gain_of(unknown, (3, 3))


def test_a_chosen_vote_has_the_classifiers_own_sigma():
    both = several(0, own={**OWN, "vote": "soft"}), several(5, own={**OWN, "vote": "soft"})
    prediction = ChosenRow("prediction")
    assert pair_lines(*both, (prediction, prediction))[1].gain.gain == gain_of(both, (9, 9))


def test_a_sigma_in_the_papers_unit():
    assert [sigma_of_normalized(several(0), value) for value in (0, 0.5, 1.0)] == [0, 0.125, 0.25]
    with pytest.raises(ArgumentError, match=r"expected a sigma of the second result in the paper's unit \(0, 1, 0.5\)"):
        sigma_of_normalized(several(0), 0.25, "second")


def test_a_row_that_does_not_exist_is_refused_with_those_that_exist():
    both = several(0), evaluated(30, seed=5, name="second", votes=("soft",))
    rows = (
        r"none \(one draw, no input noise\), M = 1; prediction vote, sigma 0.25 \(1 normalised\), M = 1, 4, 8; "
        r"soft vote, sigma 0.25 \(1 normalised\), M = 1, 4, 8; prediction vote, sigma 0.125 \(0.5 normalised\), M"
    )
    with pytest.raises(ArgumentError, match=f"sigma: expected a row of the first result: {rows}"):
        pair_lines(*both, (ChosenRow(sigma=0.1), ChosenRow()))
    with pytest.raises(ArgumentError, match=r"vote: expected a row of the second result: .*, got vote prediction"):
        pair_lines(*both, (ChosenRow("prediction"), ChosenRow("prediction")))
    with pytest.raises(ArgumentError, match=r"num_samples: expected a row .*, got vote soft, M 2"):
        pair_lines(*both, (ChosenRow("soft", None, 2), ChosenRow("soft", None, 8)))


def test_every_vote_of_a_sweep_can_be_chosen():
    result = small_result("sweep")
    for number, vote in enumerate(result.setting["votes"]):
        for sigma in (0.0, 0.1):
            row = ChosenRow(vote, sigma, 4)
            line = pair_lines(result, result, (row, row))[1]
            of_images = result.tensors["right"][1, result.setting["sigmas"].index(sigma), number, 1]
            assert line.first == f"{100 * float(of_images.double().mean()):.1f} %"


def test_a_network_without_noise_is_not_called_one_draw():
    random, fixed = evaluated(30, seed=0), evaluated(30, seed=5, is_random=False)
    names = {line.gain.name for line in pair_lines(fixed, fixed)}
    assert "network without noise, M = 1" in names
    assert not any("one draw" in name for name in names)
    first = "first: one draw, no input noise, M = 1; second: network without noise, M = 1"
    (clean, _) = [line for line in pair_lines(random, fixed) if line.gain.name == first]
    assert clean.gain.gain == gain_of((random, fixed), (0, 0), "clean")


def test_a_page_of_two_has_both_and_their_differences_first(results):
    page = Page(report_page(*results))
    assert [result["name"] for result in page.data["results"]] == ["first", "second"]
    assert page.all("h2")[:3] == ["Paired test", "A: first", "B: second"]
    assert len(page.data["images"]) == 30

    def differs(image):
        a, b = (image["results"][number]["votes"][1][-1][1][0] > 0.5 for number in (0, 1))
        return a != b

    order = [differs(image) for image in page.data["images"]]
    assert any(order)
    assert order == sorted(order, reverse=True)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def y_axes(page):
    """The texts of the y axis of each chart, by its title, in the order of the charts."""
    found, inside = [], False
    for (tag, attributes), text in zip(page.tags, page.texts, strict=True):
        if tag == "figure":
            inside = attributes.get("class") == "chart"
        elif tag == "figcaption" and inside:
            found.append((text, []))
        elif tag == "text" and inside and attributes.get("text-anchor") == "end":
            found[-1][1].append(text)
    return found


def test_charts_of_two_results_have_the_same_y_axes(results):
    first, second = results
    lower = {"robust": 0.04, "robust_interval": [0.02, 0.09]}
    second = replace(second, rows=[{**row, **lower} for row in second.rows])
    alone = [dict(y_axes(Page(report_page(each)))) for each in (first, second)]
    title = "Accuracy against the number of draws: PGD-7"
    assert alone[0][title] != alone[1][title]
    both = y_axes(Page(report_page(first, second)))
    assert len(both) == len(alone[0]) + len(alone[1])
    axes = {title: [axis for name, axis in both if name == title] for title, _ in both}
    assert len(axes[title]) == 2
    assert all(axis == of_title[0] for of_title in axes.values() for axis in of_title)
    assert axes[title][0][0] == "0"
    assert float(axes[title][0][-1]) == max(float(axis[title][-1]) for axis in alone)


def test_other_images_are_refused(results):
    first = results[0]
    fewer, other = evaluated(20), evaluated(30)
    other.tensors["labels"] = (other.tensors["labels"] + 1) % 4
    with pytest.raises(
        ArgumentError, match=r"against: expected two results on the same images, got 30 images of random"
    ):
        report_page(first, fewer)
    with pytest.raises(ArgumentError, match="30 images of random images with other labels"):
        report_page(first, other)
    pixels = replace(first, data={**first.data, "pixels": "3" * 16, "name": "photos"})
    report_page(first, pixels)  # the kept images are the same: another device rounds them in another way
    others = {**first.tensors, "images": 1 - first.tensors["images"]}
    with pytest.raises(ArgumentError, match="images of random images and of photos with other pixels"):
        report_page(first, replace(pixels, tensors=others))
    without = {name: tensor for name, tensor in first.tensors.items() if name != "images"}
    with pytest.raises(ArgumentError, match="with other pixels"):
        report_page(first, replace(pixels, tensors=without))


def test_results_without_outcomes_are_refused(results):
    first = results[0]
    with pytest.raises(
        ArgumentError, match="against: expected two results with the outcome of each image, got one of the"
    ):
        check_same_images(first, replace(first, tensors={}))
    with pytest.raises(ArgumentError, match="got one of the kind train with no outcomes of images"):
        report_page(small_result("train"), small_result("train"))
    with pytest.raises(ArgumentError, match="against: expected a Result, got an object of type str"):
        first.report("page.html", against="second.json")


@pytest.mark.parametrize(
    "kinds", [("evaluate", "worst-case"), ("certify", "attack"), ("check", "sweep"), ("examples",) * 2]
)
def test_results_of_different_kinds_on_the_same_images(kinds):
    """All small results are of the same twelve images."""
    first, second = map(small_result, kinds)
    page = Page(report_page(first, second))
    assert [result["kind"] for result in page.data["results"]] == list(kinds)
    assert all(len(image["results"]) == 2 for image in page.data["images"])
    assert page.all("p", class_="verdict")[0].endswith(").")


def test_a_result_against_itself_has_no_differences(results):
    first = results[0]
    for line in pair_lines(first, first):
        assert (line.gain.gain, line.gain.won, line.gain.lost, line.gain.p) == ("+0.0", "0", "0", "p = 1")
        assert line.gain.reading == "may be chance"
    assert torch.equal(first.tensors["labels"], results[1].tensors["labels"])
