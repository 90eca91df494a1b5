"""Reports in a real browser: filters, keyboard, slider, dark mode and small screens."""

import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

import smoothed
from contrast import contrast
from made_results import evaluated
from small_results import KINDS, small_result

pytestmark = pytest.mark.slow

# Rows of `evaluated()`: the base, the prediction vote at M = 1 and 8, the soft vote at M = 1 and 8.
LAST = 2


def right(result, kind, row, number):
    """Whether more than half of the runs of a row are right on an image."""
    return float(result.tensors[f"{kind}.right"][row, :, number].double().mean()) > 0.5


def listed(page):
    """Numbers of the images in the list."""
    return [int(item.get_attribute("id").removeprefix("image")) for item in page.locator("#list [role=option]").all()]


def selected(page):
    (item,) = page.locator("#list [aria-selected=true]").all()
    return int(item.get_attribute("id").removeprefix("image"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_kind_opens_without_complaints_and_fits_the_screen(open_page, kind, scheme, tmp_path):
    for width in (1280, 400):
        page = open_page(small_result(kind), viewport={"width": width, "height": 900}, color_scheme=scheme)
        assert page.title()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture = tmp_path / f"{kind}-{scheme}-{width}.png"
        page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 10_000


def test_filters_leave_the_images_that_they_name(open_page):
    result = evaluated()
    page = open_page(result)
    everything = listed(page)
    assert sorted(everything) == list(range(40))
    clean, robust, base = (
        {number: right(result, kind, row, number) for number in everything}
        for kind, row in (("clean", LAST), ("robust", LAST), ("robust", 0))
    )
    expected = {
        "broken": {n for n in everything if clean[n] and not robust[n]},
        "wrong": {n for n in everything if not clean[n]},
        "robust": {n for n in everything if robust[n]},
        "helped": {n for n in everything if robust[n] and not base[n]},
        "hurt": {n for n in everything if not robust[n] and base[n]},
        "changes": {
            n
            for n in everything
            if any(len(set(result.tensors[f"{kind}.right"][LAST, :, n].tolist())) == 2 for kind in ("clean", "robust"))
        },
    }
    for name, numbers in expected.items():
        page.select_option("#outcome", name)
        assert set(listed(page)) == numbers
        assert page.inner_text("#count") == f"{len(numbers)} of 40 images."
    page.click("#reset")
    assert listed(page) == everything
    page.select_option("#class", "2")
    assert set(listed(page)) == {n for n in everything if int(result.tensors["labels"][n]) == 2}
    page.select_option("#attack", "PGD-7")
    both = {n for n in expected["broken"] if int(result.tensors["labels"][n]) == 2}
    assert set(listed(page)) == both
    page.click("#reset")
    page.fill("#search", "pgd-7 class 3")
    assert expected["broken"] & {n for n in everything if int(result.tensors["labels"][n]) == 3} <= set(listed(page))
    page.fill("#search", "no such words")
    assert listed(page) == []
    assert "No image passes the filters" in page.inner_text("#detail")


def test_what_an_image_is_broken_by_agrees_with_the_matrix(open_page):
    """Image 0: half of the votes after the first attack are right, and all new ones. Image 1: no attack, but new votes.

    Image 2: no vote after the second attack is right, and the later ones, which repeat its votes, are not tried.
    """
    small = small_result("worst-case")
    attacks = [row["attack"] for row in small.rows if row["network"] == "smoothed"][1:-1]
    right = torch.ones(len(attacks) + 2, 1, 12)
    right[1, 0, 0], right[-1, 0, 1], right[2:, 0, 2] = 0.5, 0.0, 0.0
    made = torch.zeros(1, 12).long()
    made[0, 2] = 1
    result = replace(small, tensors={**small.tensors, "smoothed.right": right, "smoothed.worst_attack": made})
    page = open_page(result)
    names = [option.get_attribute("value") for option in page.locator("#attack option").all()]
    assert set(attacks) <= set(names)
    for place, name in enumerate(attacks):
        page.select_option("#attack", name)
        assert listed(page) == {0: [0], 1: [2]}.get(place, [])
        if place < 2:
            said = (
                f"Broken by {name}, by the votes taken after each attack; the line on the worst case counts new votes"
            )
            assert said in page.inner_text("#detail")
    page.click("#reset")
    page.click("#image1")
    assert "Broken by" not in page.inner_text("#detail .facts")


def test_arrow_keys_move_through_the_list(open_page):
    page = open_page(evaluated())
    order = listed(page)
    page.focus("#list")
    assert selected(page) == order[0]
    for key, place in (
        ("ArrowDown", 1),
        ("ArrowRight", 2),
        ("ArrowUp", 1),
        ("PageDown", 11),
        ("End", 39),
        ("ArrowDown", 39),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        assert selected(page) == order[place]
        assert page.get_attribute("#list", "aria-activedescendant") == f"image{order[place]}"
        assert page.inner_text("#detail h3").startswith(f"Image {order[place]}: ")
        inside = page.evaluate(
            "() => { const l = document.getElementById('list'), r = l.querySelector('[aria-selected=true]');"
            " return r.offsetTop >= l.scrollTop - 1"
            "   && r.offsetTop + r.offsetHeight <= l.scrollTop + l.clientHeight + 1; }"
        )
        assert inside


def test_the_slider_shows_the_shares_at_each_m(open_page):
    result = evaluated(kept=40)
    page = open_page(result)
    number = selected(page)
    page.focus("#samples0")
    for key, place, count in (("ArrowLeft", 1, 1), ("ArrowRight", 2, 8)):
        page.keyboard.press(key)
        assert page.get_attribute("#samples0", "aria-valuetext") == f"M = {count}"
        label = int(result.tensors["labels"][number])
        shown = page.locator("#detail .bars tbody tr").first.inner_text().split("\n")
        for kind in ("clean", "robust"):
            share = float(result.tensors[f"{kind}.shares"][place, number, label])
            assert f"{100 * round(share, 4):.1f} %" in " ".join(shown)
    page.select_option("#classifier0", "0")
    assert not page.is_visible("#samples0")
    assert "one draw, no input noise, M = 1" in page.inner_text("#detail")


def test_tab_reaches_every_control_in_their_order(open_page):
    page = open_page(evaluated())
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached[0] == "skip"
    places = [
        reached.index(name)
        for name in ("outcome", "class", "attack", "search", "reset", "classifier0", "samples0", "list")
    ]
    assert places == sorted(places)


def test_a_click_on_the_matrix_chooses_the_image(open_page):
    page = open_page(small_result("worst-case"))
    matrix = page.locator(".matrix svg").first
    images = [int(number) for number in matrix.get_attribute("data-images").split()]
    cell, left = (float(matrix.get_attribute(f"data-{name}")) for name in ("cell", "left"))
    for number in listed(page):
        matrix.click(position={"x": left + cell * (images.index(number) + 0.5), "y": 20})
        assert selected(page) == number


def test_a_key_chooses_a_column_of_the_matrix(open_page):
    page = open_page(small_result("worst-case"))
    images = [int(n) for n in page.locator(".matrix svg").first.get_attribute("data-images").split()]
    slider = page.locator(".chooser input").first
    slider.focus()
    shown = listed(page)
    assert 0 < len(shown) < len(images)
    for number in images:
        button = page.locator(".chooser button").first
        assert button.is_enabled() == (number in shown)
        if button.is_enabled():
            button.click()
            assert selected(page) == number
        slider.focus()
        page.keyboard.press("ArrowRight")


def test_two_results_side_by_side(open_page):
    first, second = evaluated(seed=0, name="first"), evaluated(seed=4, name="second")
    page = open_page(first, against=second)
    for name, better, worse in (("better", second, first), ("worse", first, second)):
        page.select_option("#outcome", name)
        expected = {n for n in range(40) if right(better, "robust", LAST, n) and not right(worse, "robust", LAST, n)}
        assert set(listed(page)) == expected
    page.click("#reset")
    page.focus("#samples1")
    page.keyboard.press("Home")
    headings = page.locator("#detail h4").all_inner_texts()
    assert headings[0].startswith("A: first, prediction vote")
    assert headings[0].endswith("M = 8")
    assert headings[1].endswith("M = 1")
    assert page.locator("#detail .pictures").count() == 2


def test_dark_and_light_have_enough_contrast(open_page):
    """Text and signs have a contrast of at least 4.5 to the page, by the formula of WCAG."""
    for scheme in ("light", "dark"):
        page = open_page(small_result("check"), color_scheme=scheme)
        colours = page.evaluate(
            "names => { const s = getComputedStyle(document.documentElement);"
            " return names.map((name) => s.getPropertyValue(name).trim()); }",
            ["--page", "--panel", "--text", "--faint", "--right", "--wrong", "--pass", "--unclear"],
        )
        grounds, texts = colours[:2], colours[2:]
        assert all(contrast(ground, text) >= 4.5 for ground in grounds for text in texts)


def test_print_leaves_the_filters_out_and_shows_the_whole_list(open_page, tmp_path):
    page = open_page(evaluated())
    page.emulate_media(media="print")
    assert not page.is_visible("#outcome")
    assert page.locator("#list [role=option]").last.is_visible()
    path = tmp_path / "report.pdf"
    page.pdf(path=path)
    assert path.read_bytes()[:5] == b"%PDF-"


def test_the_picture_of_the_documentation_is_small_enough(open_page, tmp_path):
    """The picture of docs/: SMOOTHED_PICTURES=docs/pictures writes it there. Fewer images do for the test alone."""
    folder = os.environ.get("SMOOTHED_PICTURES")
    images, path = 60 if folder else 8, Path(folder or tmp_path) / "report.png"
    result = smoothed.evaluate("resnet20-cni-w", "sample", images=images, votes="prediction", num_samples=(1, 8, 64))
    page = open_page(result, viewport={"width": 940, "height": 900})
    page.click("#image3")
    assert page.inner_text("#detail h3") == "Image 3: frog"
    assert page.inner_text("#count") == f"{images} of {images} images."
    box = page.locator("#explorer").bounding_box()
    clip = {"x": 0, "y": box["y"] + page.evaluate("scrollY"), "width": 940, "height": box["height"]}
    with Image.open(BytesIO(page.screenshot(full_page=True, clip=clip, animations="disabled"))) as taken:
        taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert 20_000 < path.stat().st_size < 200_000
