"""The race and the attack of the explorer against the package's own functions with the same seed."""

import base64
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from smoothed import Gaussian, NoisyClassifier, Smoothed, noiseless
from smoothed.attacks import named_attack
from smoothed.evaluation.correctness import attack_noisy_classifier
from smoothed.rng.sources import Keyed
from smoothed.serve import exploring
from smoothed.serve.schemas import AttackQuestion, RaceQuestion
from smoothed.smoothing.stopping import Confident, Exact
from smoothed.utils.intervals import interval
from smoothed.utils.modes import eval_mode

SIGMA, TOTAL, EPS = 0.5, 40, 8 / 255


def pixels(text):
    """The pixels (C, H, W) of the base64 text of a PNG file, from 0 to 255."""
    return torch.from_numpy(np.array(Image.open(BytesIO(base64.b64decode(text))))).permute(2, 0, 1).int()


def run(generator):
    with torch.no_grad():
        return [event for events in generator for event in events]


def run_race(served, image, **fields):
    return run(exploring.race(served, image, RaceQuestion(image=None, num_samples=TOTAL, **fields)))


def of_kind(events, kind):
    return [data for name, data in events if name == kind]


@pytest.fixture
def noisy_served(noisy_network, serve_model):
    return serve_model(noisy_network)


def test_the_race_is_the_vote_of_smoothed(noisy_served, images):
    events = run_race(noisy_served, images[1], seed=8)
    assert [name for name, _ in events if name != "stop"] == ["start", *["draw"] * TOTAL, "end"]
    smoothed = Smoothed(noisy_served.network, Gaussian(SIGMA), num_samples=TOTAL, seed=8)
    every = list(range(1, TOTAL + 1))
    tallies = smoothed.tally(images[1:2], every, votes=["prediction"])["prediction"]
    before = torch.zeros(4)
    for drawn, shown in zip(every, of_kind(events, "draw"), strict=True):
        scores = tallies[drawn].scores[0]
        assert shown["draw"] == drawn
        assert shown["shares"] == pytest.approx((scores / drawn).tolist(), abs=1e-6)
        assert shown["class"] == int((scores - before).argmax())
        if drawn % 8 == 1:
            expected = [interval(score, drawn) for score in scores.tolist()]
            shown_ends = list(zip(shown["low"], shown["high"], strict=True))
            assert shown_ends == [pytest.approx(ends, abs=1e-6) for ends in expected]
        before = scores
    (end,) = of_kind(events, "end")
    assert (end["class"], end["draws"], end["ended"]) == (int(before.argmax()), TOTAL, "num_samples")


@pytest.mark.parametrize("vote", ["prediction", "soft"])
def test_rules_stop_where_smoothed_stops(served, images, vote):
    found = {"exact": 0, "confident": 0}
    for number in range(6):
        events = run_race(served, images[number], seed=number, vote=vote, error=0.05)
        stops = {data["rule"]: data for data in of_kind(events, "stop")}
        assert set(stops) == {"exact", "confident"}
        for name, rule in (("exact", Exact()), ("confident", Confident(0.05))):
            smoothed = Smoothed(served.network, Gaussian(SIGMA), num_samples=TOTAL, seed=number)
            tally = smoothed.tally(images[number : number + 1], votes=[vote], stop=rule)[vote][TOTAL]
            assert (stops[name]["draw"], stops[name]["class"]) == (int(tally.num_samples), int(tally.classes()))
            found[name] += stops[name]["draw"] < TOTAL
    assert found["confident"] >= found["exact"] > 0 or vote == "soft"


def test_the_mean_network_is_the_network_without_noise(noisy_served, images):
    events = run_race(noisy_served, images[2], seed=0)
    with torch.no_grad(), noiseless(noisy_served.network):
        expected = noisy_served.network(images[2:3]).softmax(1)[0]
    assert of_kind(events, "start")[0]["mean_network_class"] == int(expected.argmax())
    (end,) = of_kind(events, "end")
    assert end["mean_network"]["class"] == int(expected.argmax())
    assert end["mean_network"]["probabilities"] == pytest.approx(expected.tolist(), abs=1e-6)


def test_pictures_are_the_noisy_copies_of_the_draws(noisy_served, images):
    events = run_race(noisy_served, images[0], seed=4, pictures=20, sigma=0.2)
    assert torch.equal(pixels(of_kind(events, "start")[0]["clean_png"]), (images[0] * 255).round().int())
    draws = of_kind(events, "draw")
    assert ["png" in each for each in draws] == [True] * 20 + [False] * 20
    inputs = []
    model = NoisyClassifier(lambda noisy: inputs.append(noisy) or noisy.mean((2, 3)), Gaussian(0.2))
    seed = Smoothed(noisy_served.network, Gaussian(0.2), seed=4).sampler(images[:1], TOTAL).seed
    model.with_key(images[:1].expand(20, -1, -1, -1), Keyed(seed, torch.arange(20), torch.zeros(20, dtype=torch.long)))
    for shown, copy in zip(draws, inputs[0], strict=False):
        assert torch.equal(pixels(shown["png"]), (copy.clamp(0, 1) * 255).round().int())


def test_every_and_the_last_draw(served, images):
    assert [data["draw"] for data in of_kind(run_race(served, images[0], seed=1, every=16), "draw")] == [16, 32, 40]


def test_a_race_of_a_vote_without_intervals(served, images):
    events = run_race(served, images[0], seed=1, vote="weighted")
    assert of_kind(events, "draw")[0]["low"] is None
    assert of_kind(events, "end")[0]["shares"][0]["high"] is None


def test_a_deadline_ends_the_race(served, images):
    events = run_race(served, images[0], seed=1, deadline_ms=1e-6)
    (end,) = of_kind(events, "end")
    assert end["ended"] == "deadline"
    assert end["draws"] == len(of_kind(events, "draw")) < TOTAL


@pytest.mark.parametrize("name", ["pgd", "epgd"])
def test_the_attack_is_that_of_the_package(noisy_served, images, name):
    question = AttackQuestion(image=None, attack=name, eps=EPS, steps=4, eot_samples=3, seed=6, label=1)
    events = run(exploring.attack(noisy_served, images[3], question))
    assert [kind for kind, _ in events] == ["start", *["step"] * 4, "end"]
    attack = named_attack(name, eps=EPS, steps=4, eot_samples=3)
    labels = torch.tensor([1])
    expected = attack_noisy_classifier(
        noisy_served.network, Gaussian(SIGMA), attack, images[3:4], labels, seed=6
    ).detach()
    (end,) = of_kind(events, "end")
    torch.testing.assert_close(torch.tensor(end["image"]), expected[0], rtol=0, atol=1e-6)
    assert torch.equal(pixels(end["png"]), (expected[0] * 255).round().int())
    assert end["linf"] == pytest.approx(float((expected - images[3:4]).abs().max()), abs=1e-6)
    last = of_kind(events, "step")[-1]
    assert torch.equal(pixels(last["png"]), pixels(end["png"]))
    with torch.no_grad(), noiseless(noisy_served.network), eval_mode(noisy_served.network):
        assert last["mean_network_class"] == int(noisy_served.network(expected).argmax())
    assert last["difference_factor"] == 15  # 8/255 fits 15 times into a half
    amplified = 0.5 + 15 * (expected[0] - images[3])
    assert torch.equal(pixels(last["difference_png"]), (amplified.clamp(0, 1) * 255).round().int())


def vote_by_smoothed(network, image, seed, draws, *, vote, sigma):
    """The class, the shares and the number of draws of a vote on one image, (1, C, H, W)."""

    def smoothed():
        return Smoothed(network, Gaussian(sigma), vote=vote, num_samples=draws, seed=seed)

    scores = smoothed().tally(image, votes=[vote])[vote][draws].scores[0].tolist()
    return {
        "class": int(smoothed().predict(image)[0]),
        "shares": pytest.approx([score / sum(scores) for score in scores], abs=1e-6),
        "draws": draws,
    }


@pytest.mark.parametrize(("num_samples", "draws"), [(5, 5), (40, 16)])
def test_the_vote_at_each_step_is_that_of_smoothed_on_its_image(noisy_served, images, num_samples, draws):
    image, label, asked = images[5:6], torch.tensor([2]), {"vote": "soft", "sigma": 0.2}
    question = AttackQuestion(
        image=None, attack="epgd", eps=0.25, steps=3, eot_samples=4, seed=9, label=2, num_samples=num_samples, **asked
    )
    events = run(exploring.attack(noisy_served, image[0], question))
    (start,) = of_kind(events, "start")
    network = noisy_served.network
    assert start == {"label": 2, "vote": vote_by_smoothed(network, image, 9, draws, **asked)}
    shown = of_kind(events, "step")
    assert len(shown) == 3
    for number, step in enumerate(shown, start=1):
        # The first steps of a run are those of a run that ends there.
        attack = named_attack("epgd", eps=0.25, steps=number, eot_samples=4)
        attacked = attack_noisy_classifier(network, Gaussian(0.2), attack, image, label, seed=9).detach()
        assert step["vote"] == vote_by_smoothed(network, attacked, 9, draws, **asked)


def test_the_step_at_which_the_vote_turns_over(served, images):
    places = []
    for number in range(8):
        question = AttackQuestion(image=None, attack="epgd", eps=0.1, steps=6, eot_samples=8, seed=number)
        events = run(exploring.attack(served, images[number], question))
        (start,), (end,) = of_kind(events, "start"), of_kind(events, "end")
        classes = [step["vote"]["class"] for step in of_kind(events, "step")]
        others = [place for place, winner in enumerate(classes, start=1) if winner != start["vote"]["class"]]
        assert end["turned_at"] == (others[0] if others else None)
        places.append(end["turned_at"])
    assert None in places
    assert any(place is not None and place > 1 for place in places)


def test_steps_raise_the_loss_within_the_ball(served, images):
    question = AttackQuestion(image=None, attack="epgd", eps=0.1, steps=10, eot_samples=16, seed=0)
    steps = of_kind(run(exploring.attack(served, images[3], question)), "step")
    assert [data["step"] for data in steps] == list(range(1, 11))
    assert max(data["linf"] for data in steps) <= 0.1 + 1e-6
    assert steps[-1]["loss"] > steps[0]["loss"]


def test_without_a_label_the_class_of_the_mean_network_is_attacked(served, images):
    question = AttackQuestion(image=None, seed=0, steps=1, eps=0.0)
    (end,) = of_kind(run(exploring.attack(served, images[0], question)), "end")
    with torch.no_grad():
        assert end["label"] == int(served.network(images[:1]).argmax())
    torch.testing.assert_close(torch.tensor(end["image"]), images[0], rtol=0, atol=1e-6)


def test_two_attacks_in_turn_do_not_disturb_each_other(noisy_served, images):
    questions = [
        AttackQuestion(image=None, attack="epgd", steps=3, eot_samples=2, seed=seed, label=0) for seed in (1, 2)
    ]
    alone = [of_kind(run(exploring.attack(noisy_served, images[0], each)), "end")[0]["image"] for each in questions]
    made = [[], []]
    with torch.no_grad():
        attacks = [exploring.attack(noisy_served, images[0], each) for each in questions]
        for _ in range(5):  # the start, three steps and the end
            for events, attack in zip(made, attacks, strict=True):
                events.extend(next(attack))
            noisy_served.smoothed(None, seed=0).predict(images[:2])
    assert [of_kind(events, "end")[0]["image"] for events in made] == alone
    assert alone[0] != alone[1]
