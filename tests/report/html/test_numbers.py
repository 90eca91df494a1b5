"""Numbers of a page against the tensors and rows of its result, computed anew in plain Python."""

import base64
import io
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import small_results
import smoothed
from made_results import Page, evaluated
from small_results import small_result
from smoothed.report.html.curves import result_charts
from smoothed.report.html.matrix import LEVELS, NOT_TRIED, attack_matrices
from smoothed.report.html.page import LARGEST, MOST_IMAGES, report_page
from smoothed.report.html.pictures import amplification, difference, picture

SIDE = 8


def percent(share, digits=1):
    return f"{100 * share:.{digits}f} %"


def lines(page):
    """The cells of each line of all tables."""
    found = []
    for (tag, _), text in zip(page.tags, page.texts, strict=True):
        if tag == "tr":
            found.append([])
        elif tag in {"td", "th"}:
            found[-1].append(" ".join(text.split()))
    return found


def pixels(uri):
    """The pixels of a picture, (H, W, C) or (H, W), in 0..255."""
    head, _, text = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.fixture(scope="module")
def made():
    result = evaluated(40, side=SIDE)
    return result, Page(report_page(result))


def test_every_outcome_of_the_list_is_that_of_the_tensors(made):
    result, page = made
    tensors, data = result.tensors, page.data
    about = data["results"][0]["classifiers"]
    assert [each["name"] for each in about] == [
        "one draw, no input noise",
        "prediction vote, sigma 0.25 (1 normalised)",
        "soft vote, sigma 0.25 (1 normalised)",
    ]
    assert [each["samples"] for each in about] == [[1], [1, 8], [1, 8]]
    rows = [[0], [1, 2], [3, 4]]
    assert sorted(image["number"] for image in data["images"]) == list(range(40))
    for image in data["images"]:
        number = image["number"]
        assert image["label"] == int(tensors["labels"][number])
        for classifier, of_classifier in zip(rows, image["results"][0]["votes"], strict=True):
            for row, step in zip(classifier, of_classifier, strict=True):
                for kind, outcome in zip(("clean", "robust"), step, strict=True):
                    right, margin, draws, tie, changes, predicted, shares = outcome
                    runs = [bool(tensors[f"{kind}.right"][row, run, number]) for run in range(2)]
                    assert right == sum(runs) / 2
                    assert changes == (len(set(runs)) == 2)
                    assert margin == pytest.approx(float(tensors[f"{kind}.margin"][row, 0, number]), abs=1e-4)
                    assert draws == int(tensors[f"{kind}.draws"][row, 0, number])
                    kept = tensors[f"{kind}.shares"][row, number].tolist()
                    assert predicted == kept.index(max(kept))
                    assert tie == (sorted(kept)[-1] == sorted(kept)[-2])
                    assert dict(shares) == {place: round(share, 4) for place, share in enumerate(kept)}


def test_pictures_are_the_images_the_attacked_ones_and_their_differences(made):
    result, page = made
    tensors, about = result.tensors, page.data["results"][0]
    largest = max(float((tensors["adversarial"][setting] - tensors["images"]).abs().max()) for setting in (0, 1))
    assert about["factor"] == math.floor(0.5 / largest)
    for image in page.data["images"][:10]:
        number = image["number"]
        expected = (tensors["images"][number].permute(1, 2, 0) * 255).round()
        assert np.array_equal(pixels(image["picture"]), expected.numpy())
        for classifier, setting in enumerate((0, 1, 1)):
            place = about["classifiers"][classifier]["picture"]
            attacked = tensors["adversarial"][setting, number]
            assert np.array_equal(
                pixels(image["results"][0]["attacked"][place]), (attacked.permute(1, 2, 0) * 255).round().numpy()
            )
            change = 0.5 + about["factor"] * (attacked - tensors["images"][number])
            drawn = pixels(image["results"][0]["difference"][place])
            assert np.abs(drawn - 255.0 * change.permute(1, 2, 0).numpy()).max() <= 0.51


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_pictures_of_any_number_of_channels(channels, mode):
    image = torch.rand(channels, 9, 6, generator=torch.Generator().manual_seed(0))
    text = picture(image, 64).partition(",")[2]
    drawn = Image.open(io.BytesIO(base64.b64decode(text)))
    assert (drawn.mode, drawn.size) == (mode, (6, 9))
    assert Image.open(io.BytesIO(base64.b64decode(picture(image, 3).partition(",")[2]))).size == (2, 3)


def test_an_image_that_no_attack_changed_has_a_grey_difference():
    image = torch.rand(1, 3, 4, 4)
    factor = amplification(image, image)
    assert factor == 1
    assert torch.equal(difference(image[0], image[0], factor), torch.full((3, 4, 4), 0.5))


def test_the_verdict_has_the_accuracies_of_the_rows(made):
    result, page = made
    row = result.row(vote="prediction", num_samples=8)
    base = result.rows[0]
    low, high = (100 * bound for bound in row["robust_interval"])
    expected = [percent(row["clean"]), percent(row["robust"]), percent(base["clean"]), percent(base["robust"])]
    assert page.all("strong")[:4] == expected
    assert page.all("span", class_="range")[1] == f"{low:.1f}-{high:.1f} %"
    found = {(line[0], line[1]): line[2:] for line in lines(page) if len(line) == 8 and "over one draw" in line[0]}
    assert len(found) == 4
    for gain in result.comparisons:
        last = {"prediction": 2, "soft": 4}[gain.name.split()[0]]
        kind = "clean" if gain.images == "clean" else "robust"
        before, after = (result.tensors[f"{kind}.right"][number].int().sum(0).tolist() for number in (0, last))
        won = sum(a > b for a, b in zip(after, before, strict=True))
        lost = sum(a < b for a, b in zip(after, before, strict=True))
        p = min(1.0, 2 * sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1)) / 2 ** (won + lost))
        shown = found[gain.name, "clean images" if kind == "clean" else "PGD-7"]
        assert shown[0] == f"{100 * gain.gain:+.1f}"
        assert shown[2:4] == [str(won), str(lost)]
        assert shown[4] == ("p < 0.001" if p < 0.001 else f"p = {p:.2g}")
        assert shown[5] == ("may be chance" if not gain.significant else "helps" if gain.gain > 0 else "hurts")


def test_charts_have_the_numbers_of_the_rows(made):
    result, page = made
    found = lines(page)
    for row in result.rows[1:]:
        for kind in ("clean", "robust"):
            low, high = (100 * bound for bound in row[f"{kind}_interval"])
            line = [f"{row['vote']} vote", str(row["num_samples"]), f"{100 * row[kind]:.1f}", f"{low:.1f}-{high:.1f}"]
            assert line in found
        number = result.rows.index(row)
        draws = result.tensors["robust.draws"][number, 0].double().mean()
        name = f"{row['vote']} vote, sigma 0.25 (1 normalised)"
        assert [name, f"{float(draws):.4g}", f"{100 * row['robust']:.1f}"] in [line[:3] for line in found]


def wilson(share, count):
    """The ends of the 95 % interval of a share: the proportions p whose z score, by their own deviation, is 1.96."""

    def score(p):
        return abs(share - p) - 1.959963984540054 * math.sqrt(p * (1 - p) / count)

    grid = [number / 100_000 for number in range(100_001)]
    inside = [p for p in grid if score(p) <= 0]
    return inside[0], inside[-1]


def naive_bins(shares, right):
    """Mean share, accuracy and count by tenths of the largest share."""
    bins = {}
    for row, hit in zip(shares, right, strict=True):
        bins.setdefault(min(9, int(max(row) * 10)), []).append((max(row), hit))
    return [
        (sum(share for share, _ in of_bin) / len(of_bin), sum(hit for _, hit in of_bin) / len(of_bin), len(of_bin))
        for _, of_bin in sorted(bins.items())
    ]


def test_calibration_and_coverage_against_a_slow_version(made):
    result, page = made
    found, labels = lines(page), result.tensors["labels"].tolist()
    for kind, name in (("clean", "clean images"), ("robust", "PGD-7")):
        shares = result.tensors[f"{kind}.shares"][2].double().tolist()
        right = [row.index(max(row)) == label for row, label in zip(shares, labels, strict=True)]
        bins = naive_bins(shares, right)
        for share, accuracy, _ in bins:
            assert [name, f"{100 * share:.1f}", f"{100 * accuracy:.1f}"] in [line[:3] for line in found]
        error = sum(abs(share - accuracy) * count for share, accuracy, count in bins) / len(right)
        assert f"{100 * error:.1f} points on " in page.text
        margins = [sorted(row)[-1] - sorted(row)[-2] for row in shares]
        order = sorted(range(len(right)), key=lambda number: -margins[number])
        for count in (10, 20, 40):
            accuracy = sum(right[number] for number in order[:count]) / count
            assert [name, f"{100 * count / 40:.1f}", f"{100 * accuracy:.1f}"] in [line[:3] for line in found]


def test_images_of_equal_margin_are_answered_together():
    from smoothed.report.html.calibration import accuracy_by_coverage

    shares = torch.tensor([[0.9, 0.1]] * 3 + [[0.6, 0.4]] * 5)
    right = torch.tensor([True, False, True, False, False, True, True, True])
    assert accuracy_by_coverage(shares, right) == [(3 / 8, pytest.approx(2 / 3), 3), (1.0, pytest.approx(5 / 8), 8)]


def test_the_attacks_of_the_worst_case_are_those_of_the_tensors():
    result = small_result("worst-case")
    page = Page(report_page(result))
    found = lines(page)
    for prefix, network in (("mean", "mean network"), ("smoothed", "smoothed")):
        rows = [row for row in result.rows if row["network"] == network]
        shares = result.tensors[f"{prefix}.right"].double().mean(1).tolist()
        broken = [[share <= 0.5 for share in of_row] for of_row in shares]
        for number, row in enumerate(rows):
            name = {"none": "clean images", "worst case": "worst case"}.get(row["attack"], row["attack"])
            line = [name, f"{row['attacked']:g}", "" if row["eot_samples"] is None else str(row["eot_samples"])]
            line.append(percent(sum(shares[number]) / len(shares[number])))
            line.append("{:.1f}-{:.1f}".format(*(100 * bound for bound in row["robust"]["interval"])))
            worst = {int(count): accuracy["mean"] for count, accuracy in row["worst"].items()}
            line.append(percent(worst[2]) if 2 in worst else "-")
            line.append(str(sum(broken[number])))
            if 0 < number < len(rows) - 1:
                made = str(int((result.tensors[f"{prefix}.worst_attack"][0] == number - 1).sum()))
            else:
                made = ""
            earlier = [any(of_row[image] for of_row in broken[:number]) for image in range(12)]
            first = sum(here and not before for here, before in zip(broken[number], earlier, strict=True))
            line += ["" if number == len(rows) - 1 else str(first), made]
            assert line in found
            tried = [image for image in range(12) if all(of_row[image] > 0 for of_row in shares[:number])]
            assert number in {0, len(rows) - 1} or len(tried) == row["attacked"]
    for image in page.data["images"]:
        for prefix, group in zip(("mean", "smoothed"), image["results"][0]["attacks"], strict=True):
            right = result.tensors[f"{prefix}.right"][:, 0, image["number"]].tolist()
            tried = [all(share > 0 for share in right[:number]) for number in range(len(right) - 1)] + [True]
            expected = [round(share, 4) if here else None for share, here in zip(right, tried, strict=True)]
            assert [share for _, share in group["shares"]] == expected
            made = int(result.tensors[f"{prefix}.worst_attack"][0, image["number"]])
            assert group["made"] == (None if made < 0 else group["shares"][made + 1][0])


def made_worst_case(runs):
    """A worst-case result whose attacks leave known shares, and these shares by run, attack and image.

    Attacks skip the images of which an earlier one left no right vote, and their rows repeat the final votes there, as
    `evaluation.worst_case.batch` does it. The first attack leaves no right vote on half of the images.
    """
    result = small_result("worst-case")
    images, attacks = 12, len(result.tensors["smoothed.right"]) - 2
    generator = random.Random(0)  # noqa: S311 - no secrets
    clean = [[generator.choice([0.25, 0.75, 1.0]) for _ in range(images)] for _ in range(runs)]
    candidates = [
        [
            [0.0 if attack == 0 and image % 2 else generator.choice([0.0, 0.5, 0.75, 1.0]) for image in range(images)]
            for attack in range(attacks)
        ]
        for _ in range(runs)
    ]
    tried = [[[True] * images for _ in range(attacks)] for _ in range(runs)]
    right = torch.empty(attacks + 2, runs, images)
    for run in range(runs):
        for image in range(images):
            final, is_broken = 0.125, False
            right[0, run, image], right[-1, run, image] = clean[run][image], final
            for attack in range(attacks):
                tried[run][attack][image] = not is_broken
                right[attack + 1, run, image] = final if is_broken else candidates[run][attack][image]
                is_broken = is_broken or candidates[run][attack][image] == 0
    tensors = {**result.tensors, "smoothed.right": right, "smoothed.worst_attack": torch.zeros(runs, images).long()}
    return replace(result, tensors=tensors), clean, candidates, tried


@pytest.mark.parametrize("runs", [1, 3])
def test_only_the_first_attack_that_breaks_an_image_has_it_and_later_ones_did_not_try_it(runs):
    result, clean, candidates, tried = made_worst_case(runs)
    attacks, images = len(candidates[0]), len(clean[0])
    expected = [0] * (attacks + 1)
    left = [[None] * images for _ in range(attacks)]
    for image in range(images):
        for attack in range(attacks):
            shares = [candidates[run][attack][image] for run in range(runs) if tried[run][attack][image]]
            left[attack][image] = sum(shares) / len(shares) if shares else None
        lines_of = [sum(of_run[image] for of_run in clean) / runs, *(left[attack][image] for attack in range(attacks))]
        breaking = [number for number, share in enumerate(lines_of) if share is not None and share <= 0.5]
        if breaking:
            expected[breaking[0]] += 1
    matrix = next(each for each in attack_matrices(result, 200) if each.network == "smoothed")
    assert [line.first for line in matrix.lines] == [*expected, None]
    assert expected[1] >= 3  # the first attack has those that it breaks
    for attack, line in enumerate(matrix.lines[1:-1]):
        for image, cell in zip(matrix.images, line.cells, strict=True):
            share = left[attack][image]
            assert (cell == NOT_TRIED) == (share is None)
            assert (cell == 0) == (share == 0)
            assert (cell == LEVELS - 1) == (share == 1)
    untried = sum(share is None for of_attack in left for share in of_attack)
    assert untried > 0
    page = Page(report_page(result))
    bars = [attributes for tag, attributes in page.tags if tag == "rect" and attributes.get("class") == "untried"]
    cell = max(min(640 / images, 24), 3.2)
    of_mean = next(each for each in attack_matrices(result, 200) if each.network != "smoothed")
    untried += sum(each == NOT_TRIED for line in of_mean.lines for each in line.cells)
    assert round(sum(float(bar["width"]) for bar in bars) / cell) == untried
    for image in page.data["images"]:
        shares = [share for _, share in image["results"][0]["attacks"][1]["shares"][1:-1]]
        for attack, share in enumerate(shares):
            known = left[attack][image["number"]]
            assert share == (None if known is None else round(known, 4))


def test_certified_accuracy_is_that_of_the_images():
    result = small_result("certify")
    page = Page(report_page(result))
    found = [line[:3] for line in lines(page)]
    right = (result.tensors["certified_class"][0] == result.tensors["labels"]).tolist()
    radii = [radius for radius, hit in zip(result.tensors["radius"][0].tolist(), right, strict=True) if hit]
    for radius in radii:
        share = sum(other > radius for other in radii) / len(right)
        assert any(
            line[1] == f"{radius:.4g}" and float(line[2]) <= 100 * share + 0.06 for line in found if len(line) == 3
        )
    for image in page.data["images"]:
        (certificate,) = image["results"][0]["certified"]
        assert certificate["radius"] == round(float(result.tensors["radius"][0, image["number"]]), 4)
        assert certificate["class"] == int(result.tensors["certified_class"][0, image["number"]])
        counts = result.tensors["counts"][0, image["number"]]
        label = int(result.tensors["labels"][image["number"]])
        shares = {k: round(float(count) / 40, 4) for k, count in enumerate(counts) if count or k == label}
        assert dict(image["results"][0]["votes"][0][0][0][6]) == shares


def test_votes_on_the_final_example_of_one_run_do_not_count_for_attacks_that_skipped_it():
    """The first of three runs is broken by the first attack; later ones leave 60 % of the votes right in the others."""
    result = small_result("worst-case")
    lines_of_runs = [[1.0, 1.0, 1.0], [0.0, 0.8, 0.8], *[[0.0, 0.6, 0.6]] * 6, [0.0, 0.6, 0.6]]
    right = torch.tensor(lines_of_runs)[:, :, None].expand(9, 3, 12)
    tensors = {**result.tensors, "smoothed.right": right, "smoothed.worst_attack": torch.zeros(3, 12).long()}
    matrix = next(each for each in attack_matrices(replace(result, tensors=tensors), 5) if each.network == "smoothed")
    assert [line.broken for line in matrix.lines] == [0, 0, *[12] * 7]
    assert [line.first for line in matrix.lines] == [*[0] * 8, None]


def staircase(points, x):
    """Height of a falling staircase at x: that of the last point at or before it."""
    return [y for place, y in points if place <= x][-1]


def certified_with(images, sigmas, side=8):
    """A result of `certify` with that many images and sigmas, with random radii, and 200 images with pixels."""
    generator = torch.Generator().manual_seed(0)
    small = small_result("certify")
    labels = torch.randint(10, (images,), generator=generator)
    radius = torch.rand(sigmas, images, generator=generator).double() * torch.arange(1, sigmas + 1)[:, None]
    predicted = torch.where(torch.rand(sigmas, images, generator=generator) < 0.8, labels, (labels + 1) % 10)
    counts = torch.nn.functional.one_hot(predicted, 10) * 700 + 30
    pixels = torch.rand(200, 3, side, side, generator=generator)
    rows = [
        {**row, "sigma": 0.1 * (number + 1), "sigma_normalized": None, "images": images}
        for number in range(sigmas)
        for row in small.rows
    ]
    tensors = {
        "labels": labels,
        "predicted": predicted,
        "certified_class": predicted,
        "radius": radius,
        "counts": counts,
        "images": pixels,
    }
    data = {**small.data, "images": images, "classes": [f"class {number}" for number in range(10)]}
    return replace(small, rows=rows, tensors=tensors, data=data)


def test_a_long_staircase_of_few_points_is_drawn_where_the_whole_one_is():
    result = certified_with(1500, 3)
    (chart,) = result_charts(result)
    longest = max(point.x for curve in chart.curves for point in curve.points)
    pixel = longest / (34 * 16 * 380 / 460)  # a chart is at most 34 rem wide, of which the axis has 380 of 460 units
    for number, curve in enumerate(chart.curves):
        right = result.tensors["certified_class"][number] == result.tensors["labels"]
        radii = sorted(result.tensors["radius"][number][right].tolist())
        whole = [(0.0, len(radii) / 1500)] + [(r, (len(radii) - n - 1) / 1500) for n, r in enumerate(radii)]
        drawn = [(point.x, point.y) for point in curve.points]
        assert len(radii) > 1000
        assert len(drawn) <= 482
        assert set(drawn) <= set(whole)
        assert (drawn[0], drawn[-1]) == (whole[0], whole[-1])
        for step in range(400):
            x = longest * step / 400
            earlier = staircase(whole, max(0.0, x - pixel))
            assert staircase(whole, x + pixel) <= staircase(drawn, x) <= earlier


def test_short_staircases_and_those_of_one_radius_keep_their_ends():
    short = certified_with(300, 1)
    (chart,) = result_charts(short)
    right = int((short.tensors["certified_class"] == short.tensors["labels"]).sum())
    assert len(chart.curves[0].points) == right + 1
    many = certified_with(1500, 1)
    (chart,) = result_charts(replace(many, tensors={**many.tensors, "radius": torch.zeros(1, 1500).double()}))
    right = int((many.tensors["certified_class"] == many.tensors["labels"]).sum())
    assert [(point.x, point.y) for point in chart.curves[0].points] == [(0, right / 1500), (0, 0)]


@pytest.mark.slow
def test_a_page_of_many_certificates_is_small_and_keeps_its_images():
    for images in (2000, 10_000):
        text = report_page(certified_with(images, 8))
        assert len(text.encode()) < 0.8 * LARGEST
        listed = Page(text).data["images"]
        assert len(listed) == MOST_IMAGES
        assert all(image["picture"] for image in listed)


def test_every_check_has_its_verdict_and_a_threshold_of_its_own():
    from smoothed.report.html.lights import _THRESHOLDS, lights

    result = small_result("check")
    page = Page(report_page(result))
    assert page.all("span", class_="word") == [row["verdict"] for row in result.rows]
    assert {row["name"] for row in result.rows} == set(_THRESHOLDS)
    for row, light in zip(result.rows, lights(result), strict=True):
        assert row["meaning"] in page.text
        assert f"Threshold: {light.threshold}." in page.text
        for figure in row["figures"]:
            assert f"{figure['name']} " in page.text
    assert "at least 0.33, for 2 draws" in page.text
    assert "at most 3 points" in page.text
    curve = next(row for row in result.rows if row["name"] == "accuracy falls with eps")["figures"]
    found = lines(page)
    for multiple, figure in zip((0, 0.5, 1, 2, 4), curve, strict=False):
        bounds = "{:.1f}-{:.1f}".format(*(100 * bound for bound in wilson(figure["value"], 12)))
        assert ["PGD-1", f"{multiple * 0.1 * 255:.4g}", f"{100 * figure['value']:.1f}", bounds] in found


def test_a_sweep_has_every_cell_and_its_images():
    result = small_result("sweep")
    page = Page(report_page(result))
    found = lines(page)
    for row in result.rows:
        assert any(
            line[0] == row["vote"] and line[1:3] == [str(row["num_samples"]), f"{row['sigma']:.4g}"] for line in found
        )
    best, right = result.summary["best"], result.tensors["right"]
    sigmas = result.setting["sigmas"]
    order = [best["sigma"], *(sigma for sigma in sigmas if sigma != best["sigma"])]
    vote = result.setting["votes"].index(best["vote"])
    for image in page.data["images"]:
        for sigma, of_sigma in zip(order, image["results"][0]["votes"], strict=True):
            for count, step in enumerate(of_sigma):
                for kind, outcome in enumerate(step):
                    runs = right[kind, sigmas.index(sigma), vote, count, :, image["number"]]
                    assert outcome[0] == float(runs.double().mean())
    classifiers = page.data["results"][0]["classifiers"]
    assert [each["picture"] for each in classifiers] == [0, None, None]  # the best sigma, which is shown first
    for image in page.data["images"]:
        (attacked,) = image["results"][0]["attacked"]
        expected = result.tensors["adversarial"][image["number"]]
        assert pixels(attacked) == pytest.approx(float(255 * expected), abs=0.51)


@pytest.mark.parametrize("kind", ["certify", "sweep"])
def test_kept_images_have_pictures_and_the_list_is_made_of_them(kind):
    call = {
        "certify": lambda: smoothed.certify(
            small_results.classifier(), small_results.data(), num_samples=20, selection_samples=3, keep_images=4
        ),
        "sweep": lambda: smoothed.sweep(
            small_results.classifier(),
            small_results.data(),
            sigmas=(0.1, 0.2),
            attack="none",
            num_samples=2,
            keep_images=4,
        ),
    }[kind]
    result = call()
    page = Page(report_page(result))
    assert result.setting["kept_images"] == 4
    assert "adversarial" not in result.tensors
    assert sorted(image["number"] for image in page.data["images"]) == [0, 1, 2, 3]
    for image in page.data["images"]:
        assert pixels(image["picture"]) == pytest.approx(
            float(255 * result.tensors["images"][image["number"]]), abs=0.51
        )


@pytest.mark.parametrize("kind", ["attack", "examples", "check"])
def test_outcomes_of_the_other_kinds(kind):
    result = small_result(kind)
    tensors, page = result.tensors, Page(report_page(result))
    names = {
        "attack": lambda images, _: tensors[f"{images}.right"],
        "check": lambda images, _: tensors[{"clean": "clean", "robust": "white_box"}[images] + ".accuracy"],
        "examples": lambda images, vote: (
            tensors[f"{images}.right"] / 2 if vote else tensors[f"{images}.right_draws"] / tensors[f"{images}.draws"]
        ),
    }
    for image in page.data["images"]:
        for place, of_classifier in enumerate(image["results"][0]["votes"]):
            for images, outcome in zip(("clean", "robust"), of_classifier[-1], strict=True):
                expected = float(names[kind](images, place)[image["number"]])
                assert outcome[0] == pytest.approx(expected, abs=1e-4)


RECORDED = {
    "check": [(0, ("clean", "white_box"), None)],
    "examples": [(1, ("clean", "robust"), None)],
    "worst-case": [(0, ("mean.clean", "mean.worst"), 1), (1, ("smoothed.clean", "smoothed.worst"), None)],
}


@pytest.mark.parametrize("kind", RECORDED)
def test_the_recorded_vote_of_each_kind_is_shown_at_every_number_of_draws(kind):
    """Shares, margins, draws, ties and classes against the tensors, image by image; right is that of all votes last."""
    result = small_result(kind)
    page = Page(report_page(result))
    assert result.setting["kept_num_samples"] == [1, 2, 4, 5]
    assert sorted(image["number"] for image in page.data["images"]) == [0, 1, 2]
    met = set()
    for place, sets, most in RECORDED[kind]:
        about = page.data["results"][0]["classifiers"][place]
        assert about["samples"] == ([1, 2, 4, 5] if most is None else [most])
        for image in page.data["images"]:
            steps = image["results"][0]["votes"][place]
            assert len(steps) == len(about["samples"])
            for number, step in enumerate(steps):
                for name, (right, margin, draws, tie, changes, winner, shown) in zip(sets, step, strict=True):
                    shares = result.tensors[f"{name}.shares"]
                    first, second = (shares if most else shares[number])[image["number"]].tolist()  # label 0
                    assert margin == pytest.approx(first - second, abs=1e-4)
                    assert dict(shown) == pytest.approx(
                        {0: round(first, 4), **({1: round(second, 4)} if second else {})}
                    )
                    assert (winner, changes) == (int(second > first), False)
                    assert tie == (first == second)
                    if number < len(steps) - 1:
                        assert right == (winner == 0)
                    stops = result.tensors.get(f"{name}.decided_after")
                    assert draws == (None if stops is None else int(stops[number, image["number"]]))
                    met.add((tie, winner))
    assert (True, 0) in met or kind == "examples"
    assert "Calibration of the vote's shares" in page.text


def test_a_vote_that_abstains_is_recorded_as_one():
    """No five draws are sure at an alpha of 0.001, so that every vote abstains."""
    result = small_result("worst-case")
    rows = [row | {"alpha": 0.001} if row["network"] == "smoothed" else row for row in result.rows]
    page = Page(report_page(replace(result, rows=rows)))
    for image in page.data["images"]:
        for step in image["results"][0]["votes"][1]:
            assert [outcome[5] for outcome in step] == [-1, -1]


def test_images_without_a_record_have_the_last_step_alone():
    """Of two results that keep three and twelve images, as a list shows all twelve of them."""
    few, many = small_result("check"), small_result("attack")
    page = Page(report_page(few, many))
    assert len(page.data["images"]) == 12
    assert page.data["results"][0]["classifiers"][0]["samples"] == [5]
    for image in page.data["images"]:
        ((outcomes,),) = image["results"][0]["votes"]
        assert all((outcome[6] is None) == (image["number"] > 2) for outcome in outcomes)


def test_training_shows_its_epochs():
    result = small_result("train")
    page = Page(report_page(result))
    best = result.summary["kept"]["best"]
    assert page.all("strong") == [percent(best["validation_clean"]), percent(best["validation_robust"])]
    for row in result.rows:
        line = ["clean images", str(row["epoch"]), f"{100 * row['validation_clean']:.1f}"]
        assert line in [found[:3] for found in lines(page)]
