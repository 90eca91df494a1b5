"""What the explorer watches: the race of a vote's shares, draw by draw, and an attack, step by step.

Each is a generator whose items are the events of a piece of work. Both use the draws, rules and attacks of the package.
"""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks import cross_entropy, expected_probabilities
from smoothed.attacks.max_loss.pgd import pgd_steps
from smoothed.checkpoint import package_version
from smoothed.injection import noise_from
from smoothed.report.html.pictures import difference, picture
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import Fresh, Keyed
from smoothed.serve.answers import DIGITS, answer, bounds_of_shares
from smoothed.serve.counting import Count
from smoothed.serve.events import Event
from smoothed.serve.schemas import AttackQuestion, RaceQuestion
from smoothed.serve.served import ServedModel
from smoothed.serve.settings import DRAWS_OF_A_STEP
from smoothed.serve.turns import VoteOutcome
from smoothed.smoothing.noisy_classifier import NoisyClassifier
from smoothed.smoothing.sampling import Sampler
from smoothed.smoothing.stopping import Confident, Exact
from smoothed.smoothing.votes import resolve
from smoothed.utils.modes import eval_mode

SIDE = 224
"""Largest width and height of pictures, in pixels."""

DRAWS_OF_A_PIECE = 16
"""Largest number of draws of a race from one turn to the next, so that they are seen to arrive."""

Image = Float[Tensor, "c h w"]


def race(served: ServedModel, image: Image, question: RaceQuestion) -> Iterator[Sequence[Event]]:
    """Vote with a seed and yield the events of each pass: the draws, and where each rule would have stopped.

    The draws are those of the first call of `Smoothed(..., seed=question.seed)`.

    Args:
        served: the model.
        image: pixels in [0, 1], (C, H, W).
        question: the vote; `stop` has no effect, because the race goes on to the last draw.
    """
    begun = time.monotonic()
    smoothed = served.smoothed(question.sigma, vote=question.vote, num_samples=question.num_samples, seed=question.seed)
    vote, total = resolve(smoothed.vote), smoothed.num_samples
    image = image.to(served.device)
    mean = served.mean_network(image).softmax(0)
    yield [("start", {"mean_network_class": int(mean.argmax()), "clean_png": png(image), "num_samples": total})]

    sampler = smoothed.sampler(image[None], total)
    watched = {"exact": Count(vote, total, Exact()), "confident": Count(vote, total, Confident(question.error))}
    open_rules, count = dict(watched), Count(vote, total)
    deadline = math.inf if question.deadline_ms is None else begun + question.deadline_ms / 1000
    while not count.decided and (not count.taken or time.monotonic() < deadline):
        taken = count.taken
        draws = sampler.draws_to_compute(image[None], 1, min(DRAWS_OF_A_PIECE, total - taken))
        logits = sampler.logits(image[None], torch.arange(1), taken, draws)[:, 0]
        copies = _noisy_copies(sampler, image, taken, min(len(logits), question.pictures - taken))
        events = list[Event]()
        for number, row in enumerate(logits, start=taken + 1):
            count.add(row[None])
            count.settle()
            if number % question.every == 0 or number == total:
                copy = copies[number - taken - 1] if number - taken <= len(copies) else None
                events.append(("draw", _draw(count, row, number, vote, copy)))
            for name, rule in list(open_rules.items()):
                rule.add(row[None])
                if rule.decided:
                    del open_rules[name]
                    winner = int(rule.tally.classes()[0])
                    events.append(("stop", {"rule": name, "draw": rule.taken, "class": winner}))
        yield events
    ended = "num_samples" if count.decided else "deadline"
    told = answer(
        VoteOutcome(count.tally, ended),
        vote,
        served.classes,
        seconds=round(time.monotonic() - begun, DIGITS),
        model=served.name,
        version=package_version(),
    )
    mean_network = {"class": int(mean.argmax()), "probabilities": _rounded(mean)}
    yield [("end", {**told, "mean_network": mean_network})]


def attack(served: ServedModel, image: Image, question: AttackQuestion) -> Iterator[Sequence[Event]]:
    """Attack the noisy classifier and yield an event for each gradient step, with a vote on its image.

    The images are those of `attack_noisy_classifier` with the same attack and seed: the noise of the network, of its
    input, and of the attack come from one generator. The loss and the class of one draw that an event shows come from
    other draws. The votes are those of the first call of `Smoothed(..., seed=question.seed)`, with `DRAWS_OF_A_STEP`
    draws at most. All of them have the same draws, so that only the image differs from step to step.

    Args:
        served: the model.
        image: pixels in [0, 1], (C, H, W).
        question: the attack, and the vote at each step; its label is among the classes.
    """
    inputs = image.to(served.device)[None]
    label = int(served.mean_network(inputs[0]).argmax()) if question.label is None else question.label
    labels = torch.tensor([label], device=served.device)
    generator = seeded(question.seed, served.device)
    attacked_by = _RandomNetwork(served, question.sigma, generator)
    shown_by = _RandomNetwork(served, question.sigma, seeded(mix(question.seed, 1), served.device))
    objective = expected_probabilities(question.eot_samples) if question.attack == "epgd" else None
    steps = pgd_steps(
        attacked_by,
        inputs,
        labels,
        eps=question.eps,
        steps=question.steps,
        objective=objective,
        generator=generator,
    )
    factor = max(1, math.floor(0.5 / question.eps + 1e-4)) if question.eps else 1
    attacked = inputs
    before, turned_at = _small_vote(served, inputs, question), None
    yield [("start", {"label": label, "vote": before})]
    for number, images in enumerate(steps, start=1):
        attacked = images.detach()
        logits = shown_by(attacked)
        vote = _small_vote(served, attacked, question)
        if turned_at is None and vote["class"] != before["class"]:
            turned_at = number
        loss = cross_entropy(logits, labels) if objective is None else objective(shown_by, attacked, labels)
        shown = {
            "step": number,
            "loss": round(float(loss), DIGITS),
            "linf": _linf(attacked, inputs),
            "mean_network_class": int(served.mean_network(attacked[0]).argmax()),
            "one_draw_class": int(logits[0].argmax()),
            "vote": vote,
            "png": png(attacked[0]),
            "difference_png": png(difference(inputs[0], attacked[0], factor)),
            "difference_factor": factor,
        }
        yield [("step", shown)]
    pixels = [[[round(value, DIGITS) for value in row] for row in channel] for channel in attacked[0].tolist()]
    end = {
        "png": png(attacked[0], max(served.shape)),
        "image": pixels,
        "linf": _linf(attacked, inputs),
        "label": label,
        "turned_at": turned_at,
    }
    yield [("end", end)]


def _small_vote(served: ServedModel, images: Float[Tensor, "1 c h w"], question: AttackQuestion) -> dict[str, Any]:
    """The class, the shares and the number of draws of the vote at one step of an attack."""
    smoothed = served.smoothed(question.sigma, vote=question.vote, num_samples=question.num_samples, seed=question.seed)
    draws = min(DRAWS_OF_A_STEP, smoothed.num_samples)
    tally = smoothed.tally(images, draws, votes={"shown": smoothed.vote})["shown"][draws]
    return {"class": int(tally.classes()[0]), "shares": _rounded(tally.shares[0]), "draws": draws}


class _RandomNetwork:
    """The noisy classifier as a function, so that its noise comes from a generator at each call and at no other time.

    Between two steps of an attack, the same network computes draws for others.
    """

    def __init__(self, served: ServedModel, sigma: float | None, generator: torch.Generator) -> None:
        self._noisy = served.noisy_network(sigma, generator)
        self._source = Fresh(generator)

    def __call__(self, inputs: Tensor) -> Tensor:
        """One draw: logits (N, K)."""
        with noise_from(self._noisy, self._source), eval_mode(self._noisy):
            return self._noisy(inputs)


def png(image: Image, side: int = SIDE) -> str:
    """A picture as the base64 text of a PNG file."""
    return picture(image.detach().cpu(), side).partition(",")[2]


def _noisy_copies(sampler: Sampler, image: Image, first: int, count: int) -> Float[Tensor, "p c h w"]:
    """The noisy copies of the image in `count` draws from `first` on."""
    if count <= 0 or sampler.noisy_classifier.passes_inputs_through:
        return image.expand(max(count, 0), *image.shape)
    copier = NoisyClassifier(lambda inputs: inputs, sampler.noisy_classifier.noise)
    draws = first + torch.arange(count)
    key = Keyed(sampler.seed, draws, torch.zeros(count, dtype=torch.int64))
    return copier.with_key(image.repeat(count, 1, 1, 1), key)


def _draw(count: Count, row: Float[Tensor, " k"], number: int, vote: Any, copy: Image | None) -> dict[str, Any]:  # noqa: ANN401
    """The data of the event of one draw."""
    tally = count.tally
    bounds = bounds_of_shares(tally, vote)
    shown = {
        "draw": number,
        "class": int(row.argmax()),
        "shares": _rounded(tally.shares[0]),
        "low": None if bounds is None else [low for low, _ in bounds],
        "high": None if bounds is None else [high for _, high in bounds],
    }
    return shown if copy is None else {**shown, "png": png(copy)}


def _rounded(values: Float[Tensor, " k"]) -> list[float]:
    return [round(value, DIGITS) for value in values.tolist()]


def _linf(attacked: Tensor, inputs: Tensor) -> float:
    return round(float((attacked - inputs).abs().max()), DIGITS)
