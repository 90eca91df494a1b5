"""The explorer against the real service: votes, attacks, shared views, keys, and layout."""

import base64
import os
import re
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

import smoothed
from contrast import contrast
from explorer_page import BOAT, FROG, bundled, drop, png, run, wait
from smoothed.attacks import named_attack
from smoothed.evaluation.correctness import attack_noisy_classifier
from smoothed.smoothing.config import NoiseConfig

pytestmark = pytest.mark.slow


def shown(page, *names):
    """The texts of elements by their ids."""
    return {name: page.inner_text(f"#{name}") for name in names}


def tally(image, num_samples, seed, vote="prediction"):
    """The tallies after each number of draws, of `Smoothed` with the bundled network and its noise."""
    network = smoothed.load("resnet20-cni-w")
    noise = NoiseConfig.from_header(network.checkpoint_header).for_model(network)
    classifier = smoothed.Smoothed(network, noise, vote=vote, num_samples=num_samples, seed=seed)
    return classifier.tally(image[None], range(1, num_samples + 1), votes=(vote,))[vote]


def first_undefeatable(counts, total):
    """The first number of draws after which the leader wins whatever follows, from the counts after each draw."""
    for drawn, scores in enumerate(counts, start=1):
        leader, left = max(range(len(scores)), key=lambda number: (scores[number], -number)), total - drawn
        # Ties go to the lowest class.
        rivals = [scores[number] + left - (number > leader) for number in range(len(scores)) if number != leader]
        if all(scores[leader] > most for most in rivals):
            return drawn
    raise AssertionError


def test_a_race_ends_with_the_answer_of_smoothed(open_explorer):
    total, seed = 16, 5
    page = open_explorer(f"image={FROG}&m={total}&seed={seed}")
    run(page)
    image, label, classes = bundled(FROG)
    tallies = tally(image, total, seed)
    winner = int(tallies[total].classes()[0])
    answer = page.inner_text("#answer")
    assert answer.startswith(classes[winner])
    assert ("right" in answer) == (winner == label)
    assert f"{100 * float(tallies[total].shares[0, winner]):.1f} % of {total} draws" in answer

    page.click("#clean-panel summary")
    heads = page.locator("#numbers thead th").all_inner_texts()[2:]
    for row in page.locator("#numbers tbody tr").all():
        drawn, _, *cells = row.locator("th, td").all_inner_texts()
        shares = tallies[int(drawn)].shares[0]
        for name, cell in zip(heads, cells, strict=True):
            assert cell.startswith(f"{100 * float(shares[classes.index(name)]):.1f} % ")
    assert page.locator("#numbers tbody tr").count() == 5

    exact = first_undefeatable([tallies[drawn].scores[0].tolist() for drawn in range(1, total + 1)], total)
    text = page.inner_text("#exact-stop")
    assert f"after {exact} of {total} draws" in text or exact == total
    assert page.locator("#race .marker").count() == 2
    assert page.locator("#draws li").count() == total
    last = tallies[total].scores[0] - tallies[total - 1].scores[0]
    assert page.locator("#draws li .name").last.inner_text() == classes[int(last.argmax())]


def test_a_dropped_file_of_the_right_size_keeps_its_pixels(open_explorer):
    image, _, classes = bundled(BOAT)
    page = open_explorer("m=8&seed=2")
    drop(page, "boat.png", png(image))
    page.get_by_text("Your image is chosen.").wait_for()
    assert "boat.png" in page.inner_text("#image-note")
    run(page)
    winner = int(tally(image, 8, 2)[8].classes()[0])
    assert page.inner_text("#answer").startswith(classes[winner])
    assert page.locator("#image-list [aria-selected=true]").count() == 0


def test_a_dropped_photo_is_cut_to_its_middle(open_explorer):
    photo = torch.zeros(3, 60, 100)
    photo[0, :, 20:80] = 1  # red in the middle square, black beside it
    page = open_explorer("m=2")
    drop(page, "photo.png", png(photo))
    page.get_by_text("Your image is chosen.").wait_for()
    made = Image.open(BytesIO(base64.b64decode(page.get_attribute("#picture", "src").split(",")[1])))
    assert made.size == (32, 32)
    assert all(red > 250 and green == blue == 0 for _, (red, green, blue) in made.convert("RGB").getcolors())


@pytest.mark.parametrize(("num_samples", "copies"), [(64, ""), (65, ", the first 64 of 65 draws")])
def test_the_page_says_how_many_noisy_copies_it_shows(open_explorer, num_samples, copies):
    page = open_explorer(f"image={FROG}&m={num_samples}")
    run(page)
    assert page.locator("#draws li").count() == 64
    assert page.inner_text("#clean-panel h3") == f"Noisy copies and their classes{copies}"
    assert page.text_content("#attacked-copies") == copies


def test_the_attack_stays_in_its_ball_and_its_image_is_voted_on(open_explorer):
    asked = []

    def note(request):
        asked.append(request)

    page = open_explorer(
        f"image={FROG}&m=8&seed=1&attack=epgd&eps=6/255&steps=3&eot=2",
        prepare=lambda page: page.on("request", note),
    )
    run(page, "#run-attack")
    image, label, classes = bundled(FROG)
    attack, vote = [request.post_data_json for request in asked if request.method == "POST"][1:]
    assert (attack["label"], attack["eps"], attack["eot_samples"]) == (label, 6 / 255, 2)
    assert (attack["vote"], attack["num_samples"]) == ("prediction", 8)
    attacked = torch.tensor(vote["image"])
    assert float((attacked - image).abs().max()) == pytest.approx(6 / 255, abs=2e-6)
    winner = int(tally(attacked, 8, 1)[8].classes()[0])
    assert page.inner_text("#attacked-answer").startswith(classes[winner])

    page.click("#attack-panel summary")
    page.locator("#attack-numbers tbody tr").nth(2).wait_for()  # the table is filled when it is opened
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("#attack-numbers tbody tr").all()]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[-1][2] == "6.0/255"
    page.focus("#step")
    page.keyboard.press("Home")
    assert page.inner_text("#step-text").startswith(
        f"Step 1: the mean network says {rows[0][3]}, one draw says {rows[0][4]};"
    )
    assert classes[winner] in page.inner_text("#turned")


def images_of_steps(image, label, steps, *, eps, eot_samples, seed):
    """The images after each step of EPGD on the bundled network, (1, 3, 32, 32)."""
    network = smoothed.load("resnet20-cni-w")
    noise = NoiseConfig.from_header(network.checkpoint_header).for_model(network)
    for number in range(1, steps + 1):  # the first steps of a run are those of a run that ends there
        attack = named_attack("epgd", eps=eps, steps=number, eot_samples=eot_samples)
        made = attack_noisy_classifier(network, noise, attack, image[None], torch.tensor([label]), seed=seed)
        yield made.detach()


@pytest.mark.parametrize("eps", [6, 24])
def test_the_vote_at_each_step_and_where_it_turns_over(open_explorer, eps):
    steps, total, seed = 3, 8, 1
    page = open_explorer(f"image={FROG}&m={total}&seed={seed}&attack=epgd&eps={eps}/255&steps={steps}&eot=2")
    run(page, "#run-attack")
    image, label, classes = bundled(FROG)
    before = classes[int(tally(image, total, seed)[total].classes()[0])]
    expected = []
    for attacked in images_of_steps(image, label, steps, eps=eps / 255, eot_samples=2, seed=seed):
        votes = tally(attacked[0], total, seed)[total]
        winner = int(votes.classes()[0])
        expected.append((classes[winner], f"{100 * float(votes.shares[0, winner]):.1f} %"))
    turned = [number for number, (winner, _) in enumerate(expected, start=1) if winner != before]
    assert bool(turned) == (eps == 24)

    page.click("#attack-panel summary")
    page.locator("#attack-numbers tbody tr").nth(2).wait_for()  # the table is filled when it is opened
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("#attack-numbers tbody tr").all()]
    assert [(row[5], row[6]) for row in rows] == expected
    assert [int(row[0]) for row in rows if row[7] == "the vote turns over"] == turned[:1]
    assert page.locator("#loss .marker.turn").count() == len(turned[:1])
    ending = f"it first turns over at step {turned[0]}, from {before}." if turned else "it has not turned over."
    page.focus("#step")
    page.keyboard.press("Home")
    for number, (winner, share) in enumerate(expected, start=1):
        assert page.inner_text("#step-number") == f"{number} of {steps}"
        assert page.inner_text("#step-vote") == f"The vote of {total} draws says {winner}, {share}; {ending}"
        assert page.inner_text("#difference-caption") == f"difference \N{MULTIPLICATION SIGN} {255 // (2 * eps)}"
        page.keyboard.press("ArrowRight")


@pytest.mark.parametrize("entered", ["when asked", "in the address"])
def test_a_service_with_a_token(open_explorer, guarded_service, entered):
    address, token = guarded_service
    asked, in_address = [], entered == "in the address"
    page = open_explorer(
        f"image={FROG}&m=2&steps=1&eot=1",
        at=address.replace("http://", f"http://anyone:{token}@") if in_address else address,
        refused=["401"],  # before the browser presents the token
        prepare=lambda page: page.on("request", lambda request: asked.append(request)),  # noqa: PLW0108 - a builtin function fails
        http_credentials=None if in_address else {"username": "anyone", "password": token},
    )
    run(page, "#run-attack")
    assert "of 2 draws" in page.inner_text("#attacked-answer")
    assert page.evaluate("document.getElementById('image0').querySelector('img').naturalWidth") == 32
    posted = [request for request in asked if request.method == "POST"]
    assert len(posted) == 3
    assert all(token not in request.url + request.post_data for request in posted)
    assert token not in page.content()
    told = page.evaluate("import('/static/service.js').then((service) => service.pageAddress())")
    assert told == address


def test_a_shared_view_reproduces_itself(open_explorer):
    names = [
        f"{prefix}{name}"
        for prefix in ("", "attacked-")
        for name in ("answer", "mean-network", "exact-stop", "confident-stop", "race-setting", "board")
    ]
    names += ["step-text", "step-vote", "turned", "attack-setting", "image-note"]
    first = open_explorer(f"image={BOAT}&m=8&seed=7&vote=soft&sigma=0.1&attack=pgd&eps=0.05&steps=2")
    run(first, "#run-attack")
    assert "show=attack" in first.url
    paper_unit = float(first.inner_text("#sigma-note").removesuffix(" normalised"))
    assert abs(paper_unit - 0.1 * 0.24 / 0.06016) < 1e-3  # both of the checkpoint
    second = open_explorer(first.url.partition("#")[2])
    wait(second)
    assert shown(second, *names) == shown(first, *names)
    assert second.url == first.url


def test_a_shared_view_of_a_dropped_image_reproduces_itself(open_explorer):
    first = open_explorer("m=8&seed=3")
    drop(first, "photo.png", png(torch.rand(3, 48, 70, generator=torch.Generator().manual_seed(0))))
    first.get_by_text("Your image is chosen.").wait_for()
    run(first)
    second = open_explorer(first.url.partition("#")[2])
    wait(second)
    assert shown(second, "answer", "board") == shown(first, "answer", "board")
    assert second.get_attribute("#picture", "src") == first.get_attribute("#picture", "src")


def test_a_link_that_is_opened_in_the_same_tab_changes_the_view(open_explorer):
    page = open_explorer(f"image={FROG}&m=8")
    page.evaluate("location.hash = 'image=5&m=2&show=vote'")
    page.locator("#answer", has_text="of 2 draws").wait_for()
    wait(page)
    assert page.locator("#image5").get_attribute("aria-selected") == "true"
    assert page.input_value("#samples") == "2"


def test_an_image_is_chosen_and_voted_on_by_keys_alone(open_explorer):
    page = open_explorer("m=2")
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "image-list":
            break
    columns = page.evaluate(
        "() => { const l = [...document.querySelectorAll('#image-list li')];"
        " return l.findIndex((each) => each.offsetTop > l[0].offsetTop); }"
    )
    assert columns > 1
    for key, number in (
        ("ArrowRight", 1),
        ("ArrowDown", 1 + columns),
        ("ArrowLeft", columns),
        ("ArrowUp", 0),
        ("ArrowLeft", 0),
        ("End", 59),
        ("ArrowRight", 59),
        ("Home", 0),
        ("ArrowDown", columns),
    ):
        page.keyboard.press(key)
        assert page.get_attribute("#image-list", "aria-activedescendant") == f"image{number}"
        assert page.locator("#image-list [aria-selected=true]").get_attribute("id") == f"image{number}"
        assert f"image={number}&" in page.url
        inside = page.evaluate(
            "() => { const l = document.getElementById('image-list'), r = l.querySelector('[aria-selected=true]');"
            " return r.offsetTop >= l.scrollTop && r.offsetTop + r.offsetHeight <= l.scrollTop + l.clientHeight; }"
        )
        assert inside
    page.keyboard.press("Enter")
    wait(page)
    assert f"image {columns} (" in page.inner_text("#status")
    assert "of 2 draws" in page.inner_text("#answer")


def test_tab_reaches_every_control(open_explorer):
    page = open_explorer()
    reached = []
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    names = ["skip", "image-list", "file", "vote", "samples", "sigma", "seed", "run", "attack", "eps", "steps", "eot"]
    names += ["run-attack", "copy-link", "draws"]
    places = [reached.index(name) for name in names]
    assert places == sorted(places)
    page.focus("#skip")
    before = page.url
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "results"
    assert page.url == before


def test_a_run_can_be_cancelled_and_a_new_one_ends_it(open_explorer):
    page = open_explorer("m=512")
    page.click("#run")
    page.locator("#draws li").first.wait_for()
    page.click("#cancel")
    wait(page)
    assert page.inner_text("#status") == "The run is cancelled."
    assert re.match(r"Stopped after \d+ draws", page.inner_text("#answer"))
    page.click("#run")
    page.locator("#draws li").first.wait_for()
    page.fill("#samples", "2")
    page.click("#run")
    page.locator("#answer", has_text="of 2 draws").wait_for()
    wait(page)
    assert page.locator("#draws li").count() == 2
    page.click(f"#image{BOAT}")
    assert page.inner_text("#answer") == "No vote has run on this image yet."
    assert page.locator("#draws li").count() == 0


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_moves_while_a_vote_runs_and_nothing_is_cut_off(open_explorer, width):
    places = (
        "() => Object.fromEntries([...document.querySelectorAll('[id]:is(section, svg, tbody, ol, button, .stop)')]"
        ".filter((each) => each.checkVisibility())"
        ".map((each) => [each.id, each.getBoundingClientRect().top + scrollY]))"
    )
    page = open_explorer(f"image={FROG}&m=4&steps=2&eot=1", viewport={"width": width, "height": 900})
    before = page.evaluate(places)
    run(page, "#run-attack")
    after = page.evaluate(places)
    assert {name: after[name] for name in before} == pytest.approx(before, abs=0.5)  # pixels
    assert "attacked-race" in after
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_explorer, scheme):
    page = open_explorer(color_scheme=scheme)
    page_colour, panel, *texts, main, on_main, edge = page.evaluate(
        "names => { const s = getComputedStyle(document.documentElement);"
        " return names.map((name) => s.getPropertyValue(name).trim()); }",
        ["--page", "--panel", "--text", "--faint", "--right", "--wrong", "--main", "--on-main", "--edge"],
    )
    assert all(contrast(ground, text) >= 4.5 for ground in (page_colour, panel) for text in texts)
    assert contrast(main, on_main) >= 4.5
    assert contrast(page_colour, edge) >= 3  # edges of fields


def test_print_shows_the_results_alone(open_explorer, tmp_path):
    page = open_explorer(f"image={FROG}&m=8&show=vote")
    wait(page)
    page.emulate_media(media="print")
    assert not page.is_visible("#settings")
    assert page.is_visible("#answer")
    assert page.locator("#draws li").last.is_visible()
    page.pdf(path=tmp_path / "explorer.pdf")
    assert (tmp_path / "explorer.pdf").read_bytes()[:5] == b"%PDF-"


def test_the_picture_of_the_documentation_is_small_enough(open_explorer, tmp_path):
    """The picture of docs/: SMOOTHED_PICTURES=docs/pictures writes it there."""
    path = Path(os.environ.get("SMOOTHED_PICTURES", tmp_path)) / "explorer.png"
    page = open_explorer("image=16&m=64&seed=0&eps=8/255&attack=epgd&steps=10&eot=8&show=attack")
    wait(page)
    page.evaluate("scrollTo(0, 0)")
    with Image.open(BytesIO(page.screenshot(full_page=True, animations="disabled"))) as taken:
        taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert 50_000 < path.stat().st_size < 400_000
