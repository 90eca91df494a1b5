"""What the explorer does with broken files, wrong settings, errors of the service, and hostile names."""

import base64

import pytest
import torch

from explorer_page import FROG, bundled, drop, png, run

pytestmark = pytest.mark.slow


def test_a_broken_file_is_refused_and_the_choice_before_it_stays(open_explorer):
    page = open_explorer(f"image={FROG}")
    broken = png(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)))[:200]
    drop(page, "broken.png", broken)
    page.locator("#status.error").wait_for()
    assert page.inner_text("#status").startswith("Error: broken.png: expected a picture that this browser can read")
    assert page.locator("#image-list [aria-selected=true]").get_attribute("id") == f"image{FROG}"


def test_errors_of_the_service_are_shown_in_its_words(open_explorer):
    text = base64.urlsafe_b64encode(b"no picture at all").decode().rstrip("=")
    page = open_explorer(f"png={text}&m=2", refused=["415"])
    run(page)
    assert page.inner_text("#status").startswith("Error: image.png: expected an image file of the format")
    assert page.is_disabled("#cancel")


def test_a_service_that_has_gone_is_named(open_explorer):
    page = open_explorer("m=2", refused=["ERR_CONNECTION_REFUSED"])
    page.route("**/v1/explore/vote", lambda route: route.abort("connectionrefused"))
    run(page)
    assert page.inner_text("#status").startswith("Error: The service does not answer.")


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("m=100000", "Draws M: expected a whole number from 1 to 512, got 100000."),
        ("eps=8/0&show=attack", "Eps: expected a number or a fraction from 0 to 1, got 8/0."),
        ("sigma=2", "Sigma: expected a number or a fraction from 0 to 1, got 2."),
    ],
)
def test_settings_out_of_range_are_named(open_explorer, view, message):
    page = open_explorer(view)
    if "show" not in view:
        page.click("#run")
    page.locator("#status.error").wait_for()
    assert page.inner_text("#status") == f"Error: {message}"
    assert page.locator("[aria-invalid=true]").count() == 1
    assert page.evaluate("document.activeElement.getAttribute('aria-invalid')") == "true"


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("image=60", "image in the address: expected a number from 0 to 59, got 60."),
        ("image=cat", "image in the address: expected the number of an example image, got cat; the default is used."),
        ("vote=loud", "vote in the address: expected prediction or weighted or soft, got loud; the default is used."),
        ("m=-3&show=vote", "m in the address: expected a whole number, got -3; the default is used."),
    ],
)
def test_a_wrong_address_is_named_and_nothing_runs(open_explorer, view, message):
    page = open_explorer(view)
    page.locator("#status.error").wait_for()
    assert message in page.inner_text("#status")
    assert page.inner_text("#answer") == "No vote has run on this image yet."
    assert page.locator("#image0").get_attribute("aria-selected") == "true"


def test_names_are_text_and_never_markup(open_explorer):
    hostile = "<img src=x onerror=document.title='broken'>"

    def prepare(page):
        def answer(route):
            body = route.fetch().json()
            route.fulfill(json={**body, "model": hostile, "classes": [hostile] * len(body["classes"])})

        page.route("**/v1/model", answer)

    page = open_explorer(f"image={FROG}&m=2", prepare=prepare)
    drop(page, f"{hostile}.png", png(bundled(FROG)[0]))
    page.get_by_text("Your image is chosen.").wait_for()
    run(page)
    assert hostile in page.inner_text("#image-note")
    assert hostile in page.inner_text("#model")
    assert hostile in page.inner_text("#mean-network")
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "Vote explorer"


def test_events_are_read_from_any_pieces(open_explorer):
    """The parser of event streams, by the rules of the HTML standard, whatever the pieces in which the text arrives."""
    page = open_explorer()
    text = ': a comment\r\nevent: draw\r\ndata: {"name":\r\ndata: "é"}\r\n\r\ndata:1\n\nevent: none\n\n'
    text += "id: 7\rdata: [2]\r\revent: cut\ndata: 3\n"
    made = page.evaluate(
        "async (text) => { const { EventParser } = await import('/static/service.js');"
        " return [1, 2, 3, 7, 1000].map((size) => { const parser = new EventParser(), events = [];"
        "   for (let at = 0; at < text.length; at += size) events.push(...parser.push(text.slice(at, at + size)));"
        "   return events; }); }",
        text,
    )
    assert made == [[["draw", {"name": "é"}], ["message", 1], ["message", [2]]]] * 5


def test_fractions_and_addresses_are_read_back(open_explorer):
    page = open_explorer()
    values = page.evaluate(
        "async (texts) => { const { fraction } = await import('/static/state.js');"
        " return texts.map((text) => String(fraction(text))); }",
        ["8/255", " 0.5 ", "1e-2", "", "1/", "/2", "1/2/3", "a", "3/0"],
    )
    assert [float(value) for value in values[:3]] == [8 / 255, 0.5, 0.01]
    assert set(values[3:]) == {"NaN"}
    picture = base64.b64encode(bytes(range(256))).decode()
    read = page.evaluate(
        "async (picture) => { const s = await import('/static/state.js');"
        " const hash = s.writeAddress({ png: s.toAddress(picture), eps: '8/255', vote: 'by_rank(1, 0.5)', m: '' });"
        " const { values, complaints } = s.readAddress(hash);"
        " return [s.fromAddress(values.png), values.eps, values.vote, values.m ?? null, complaints]; }",
        picture,
    )
    assert read == [picture, "8/255", "by_rank(1, 0.5)", None, []]
