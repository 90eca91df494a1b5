"""A smoothed classifier on trial: the examples that an attack makes of it, and what it is worth against them."""

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.attacks import Attack, expected_loss, one_draw, pgd
from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.objectives import checked_logits
from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import ATTACK, BATCH, ROBUST
from smoothed.evaluation.resume import Records, circumstances
from smoothed.injection import drawing, noiseless
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import Fresh
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.noisy_classifier import OneDraw
from smoothed.utils.checks import check_inputs, check_labels, check_not_negative, check_positive
from smoothed.utils.modes import Classifier, evaluating

# Enough to see whether two draws differ.
PROBE = 8

PerBatch = Callable[[OneDraw, Tensor, Tensor, torch.Generator], Tensor]
"""From one draw, inputs, labels and a generator to something with a row for each image."""


@dataclass(frozen=True)
class Settings:
    """How hard the checks try, and how much of a flaw they allow.

    Attributes:
        eps: L-inf radius in pixel units of [0, 1].
        steps: gradient steps of PGD, each of eps / 4.
        attack_samples: draws for each gradient of the white-box attack that the others are held against.
        queries: of the black-box attack, for each image.
        tries: random points in the ball, for each image.
        votes: independent votes that estimate the expected accuracy of one.
        tolerance: how much of a flaw is allowed, as a fraction of 1: 0.03 is 3 points of accuracy.
        seed: of everything random.

    Raises:
        ArgumentError: a number that makes no sense.
    """

    eps: float = 8 / 255
    steps: int = 10
    attack_samples: int = 4
    queries: int = 100
    tries: int = 50
    votes: int = 4
    tolerance: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        if check_not_negative(self.eps, "eps") == 0:
            raise ArgumentError("eps", "a radius above 0", self.eps)
        check_not_negative(self.tolerance, "tolerance")
        for name in ("steps", "attack_samples", "queries", "tries", "votes"):
            check_positive(getattr(self, name), name)


@dataclass(frozen=True, eq=False)
class Defence:
    """A smoothed classifier, and the images on which it is tried.

    All accuracies are expected ones: the share of independent votes, each of fresh draws that no attack has seen, that
    are right. They are the same draws for all attacks, so that what differs is the attacks' doing. Pixels for which an
    attack ends without a number count as not attacked.

    Attributes:
        smoothed: the defence; its `num_samples` are the draws of a vote. It is left as it was found.
        inputs: images in [0, 1], (N, C, H, W), on its device.
        labels: true classes (N,).
        settings: see `Settings`.
        records: where adversarial examples and findings are kept; nowhere if not given. See `Defence.of`.

    Raises:
        ArgumentError: inputs that are no images in [0, 1], or labels that are not theirs.
    """

    smoothed: Smoothed
    inputs: Tensor
    labels: Tensor
    settings: Settings = field(default_factory=Settings)
    records: Records = field(default_factory=lambda: Records(None, {}))

    def __post_init__(self) -> None:
        check_labels(self.labels, check_inputs(self.inputs))

    @classmethod
    def of(
        cls, smoothed: Smoothed, data: Images, settings: Settings, *, name: str = "", out: Path | None = None
    ) -> Self:
        """A defence on all images of a set, with records.

        Args:
            smoothed: the defence; with `out` its model is a network, which the records are tied to.
            data: images on its device; all of them are held in memory.
            settings: see `Settings`.
            name: of the model, for the records.
            out: a folder for the examples and findings that are done, from which killed checks go on; None keeps
                nothing.

        Raises:
            ArgumentError: records of something that is no network.
            CheckpointError: `out` holds the records of another defence or of other settings.
            OutputError: `out` can't be written.
        """
        (batch,) = data.batches(len(data))
        if out is None:
            return cls(smoothed, *batch, settings)
        network, vote = smoothed.model, smoothed.vote
        if not isinstance(network, nn.Module):
            raise ArgumentError("out", "a network whose weights the records are tied to", type(network).__name__)
        configuration = {
            "protocol": "checklist",
            "model": name,
            **asdict(settings),
            "noise": repr(smoothed.one_draw.noise),
            "layer": smoothed.one_draw.layer,
            "vote": vote if isinstance(vote, str) else getattr(vote, "__name__", "own"),
            "num_samples": smoothed.num_samples,
            "batch": BATCH,
        }
        return cls(smoothed, *batch, settings, Records(out, configuration | circumstances(network, data)))

    @cached_property
    def is_random(self) -> bool:
        """Whether two draws differ, or their gradients: if not, one vote of one draw is all there is to see."""
        return not all(torch.equal(*twice.nan_to_num()) for twice in (self._probe(_logits), self._probe(_gradient)))

    @cached_property
    def classes(self) -> int:
        """The number of classes, K."""
        return self._probe(_logits).shape[2]

    @cached_property
    def clean(self) -> Float[Tensor, " n"]:
        """Accuracy without an attack, of each image."""
        return self.accuracy(self.inputs)

    @cached_property
    def white_examples(self) -> Float[Tensor, "n c h w"]:
        """The examples of the white-box attack that others are held against: PGD on the expected loss."""
        return self.examples("white box", self.pgd())

    @cached_property
    def white(self) -> Float[Tensor, " n"]:
        """Accuracy under that attack, of each image."""
        return self.accuracy(self.white_examples)

    @cached_property
    def mean_examples(self) -> Float[Tensor, "n c h w"]:
        """The examples that PGD makes of the network without any noise."""
        attack = self.pgd(num_samples=1)
        return self.examples(
            "mean network",
            lambda model, inputs, labels, generator=None: attack(without_noise(model), inputs, labels, generator),
        )

    @cached_property
    def mean(self) -> Float[Tensor, " n"]:
        """Accuracy of the network without any noise under that attack, of each image: 0 or 1."""

        @torch.no_grad()
        def correct(draw: OneDraw, inputs: Tensor, labels: Tensor, _: object) -> Tensor:
            return (without_noise(draw)(inputs).argmax(1) == labels).float()

        return self.by_batch("mean network", correct, self.mean_examples)

    @cached_property
    def transferred(self) -> Float[Tensor, " n"]:
        """Accuracy of the defence, noise and all, on those examples, of each image."""
        return self.accuracy(self.mean_examples)

    @property
    def attack_samples(self) -> int:
        """Draws for each gradient: one where they are all the same."""
        return self.settings.attack_samples if self.is_random else 1

    def pgd(self, *, eps: float | None = None, steps: int | None = None, num_samples: int | None = None) -> Attack:
        """PGD on the expected loss, by the settings but for what is given."""
        eps, steps = eps or self.settings.eps, steps or self.settings.steps
        objective = expected_loss(num_samples or self.attack_samples)
        return lambda model, inputs, labels, generator=None: pgd(
            model, inputs, labels, eps=eps, steps=steps, objective=objective, generator=generator
        )

    def under(self, name: str, attack: Attack, stream: int = 0) -> Float[Tensor, " n"]:
        """Accuracy under `attack`, of each image; `name` decides the attack's randomness, `stream` the votes'."""
        return self.accuracy(self.examples(name, attack), stream)

    def examples(self, name: str, attack: Attack) -> Float[Tensor, "n c h w"]:
        """What `attack` makes of the inputs; pixels that it leaves without a number are those of the inputs.

        A batch is a record by this name: one name is one attack.
        """
        images = self.by_batch(name, attack, kept=True)
        return torch.where(images.isfinite(), images, self.inputs)

    def accuracy(self, images: Tensor, stream: int = 0) -> Float[Tensor, " n"]:
        """The share of votes on `images` that are right, of each image; `stream` decides the votes' draws."""
        votes, draws = (self.settings.votes, self.smoothed.num_samples) if self.is_random else (1, 1)
        correct = torch.zeros(len(images), device=images.device)
        for vote in range(votes):
            generator = seeded(mix(self.settings.seed, ROBUST, stream, vote), images.device)
            tallies = self.smoothed.tally(images, (draws,), votes={"own": self.smoothed.vote}, generator=generator)
            correct += tallies["own"][draws].classes() == self.labels
        return correct / votes

    def by_batch(self, name: str, function: PerBatch, images: Tensor | None = None, *, kept: bool = False) -> Tensor:
        """The rows of `function` for all images, the inputs if none are given.

        `name` decides the noise and what else `function` draws from its generator; `kept` ones are recorded under it.
        """
        images = self.inputs if images is None else images
        rows = list[Tensor]()
        for number, batch in enumerate(zip(images.split(BATCH), self.labels.split(BATCH), strict=True)):
            run = partial(self._run, name, number, *batch, function)
            if kept:
                step = f"examples-{name.replace(' ', '-')}-batch{number:04d}"
                rows.append(self.records.once(step, lambda run=run: {"examples": run()})["examples"].to(images.device))
            else:
                rows.append(run())
        return torch.cat(rows)

    def _run(self, name: str, number: int, inputs: Tensor, labels: Tensor, function: PerBatch) -> Tensor:
        generator = seeded(mix(self._key(name), ATTACK, number), inputs.device)
        own = self.smoothed.one_draw
        draw = OneDraw(own.model, own.noise, layer=own.layer, generator=generator)
        with drawing(draw, Fresh(generator)), evaluating(draw):
            return function(draw, inputs, labels, generator)

    def _key(self, name: str) -> int:
        return mix(self.settings.seed, zlib.crc32(name.encode()))

    def _probe(self, function: PerBatch) -> Tensor:
        """What `function` gives for the first images, twice."""

        def twice(*batch: Any) -> Tensor:  # noqa: ANN401 - what `PerBatch` takes
            return torch.stack([function(*batch), function(*batch)])

        return self._run("probe", 0, self.inputs[:PROBE], self.labels[:PROBE], twice)


@torch.no_grad()
def _logits(draw: OneDraw, inputs: Tensor, labels: Tensor, _: object) -> Tensor:
    return checked_logits(draw, inputs, labels)


def _gradient(draw: OneDraw, inputs: Tensor, labels: Tensor, _: object) -> Tensor:
    return input_gradient(one_draw(), draw, inputs, labels)


def without_noise(model: Classifier) -> Classifier:
    """The network, of a `OneDraw` if it is one, without any noise, its own and the input's."""
    network = model.model if isinstance(model, OneDraw) else model

    def mean(inputs: Tensor) -> Tensor:
        with noiseless(network):
            return network(inputs)

    return mean
