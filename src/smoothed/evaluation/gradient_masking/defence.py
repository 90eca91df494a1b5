"""The classifier under test: adversarial examples and accuracies that several checks share."""

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.attacks import Attack, expected_loss, one_draw_loss, pgd
from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.objectives import checked_logits
from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import BATCH
from smoothed.evaluation.kept_votes import tally_and_record
from smoothed.evaluation.resume import ResumeFolder, Tensors, fingerprints
from smoothed.evaluation.streams import BatchStream
from smoothed.injection import noise_from, noiseless
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import Fresh
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.noisy_classifier import NoisyClassifier
from smoothed.utils.checks import check_inputs, check_labels, check_not_negative, check_positive
from smoothed.utils.modes import Classifier, eval_mode

# Number of images that show whether two draws differ.
PROBE = 8

PerBatch = Callable[[NoisyClassifier, Tensor, Tensor, torch.Generator], Tensor]
"""Function from a noisy classifier, inputs, labels and a generator to a tensor with one row per image."""


@dataclass(frozen=True)
class CheckSettings:
    """Strength of the attacks of the checks, and tolerance of their verdicts.

    Attributes:
        eps: L-inf radius in pixel units of [0, 1].
        steps: gradient steps of PGD; the step size is eps / 4.
        eot_samples: draws averaged for each gradient of the white-box attack, the reference of the checks.
        queries: queries per image of the black-box attack.
        tries: random points of the ball tried for each image.
        votes: independent votes per image that estimate its expected accuracy.
        tolerance: largest flaw that passes, as a fraction: 0.03 is 3 points of accuracy.
        seed: seed of all randomness.

    Raises:
        ArgumentError: a number out of range.
    """

    eps: float = 8 / 255
    steps: int = 10
    eot_samples: int = 4
    queries: int = 100
    tries: int = 50
    votes: int = 4
    tolerance: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        if check_not_negative(self.eps, "eps") == 0:
            raise ArgumentError("eps", "a radius above 0", self.eps)
        check_not_negative(self.tolerance, "tolerance")
        for name in ("steps", "eot_samples", "queries", "tries", "votes"):
            check_positive(getattr(self, name), name)


@dataclass(frozen=True, eq=False)
class Defence:
    """A smoothed classifier with the images on which it is checked.

    The accuracy of an image is its share of right votes, with draws that no attack has seen. All attacks are evaluated
    with the same draws, so differences between accuracies come from the attacks. Pixels that are not finite after an
    attack are reset to those of the clean image.

    Attributes:
        smoothed: classifier to check; a vote takes its `num_samples` draws. Its state is not changed.
        inputs: images in [0, 1], (N, C, H, W), on the device of the classifier.
        labels: true classes, (N,) int64.
        settings: strength of the attacks and tolerance.
        resume: folder that stores adversarial examples and findings; by default nothing is stored.
        keep_images: number of images, from the first on, on which the first vote is recorded (`tally_and_record`),
            before and after the reference attack.

    Raises:
        ArgumentError: inputs outside [0, 1] or of another shape, or labels of another shape or type.
    """

    smoothed: Smoothed
    inputs: Tensor
    labels: Tensor
    settings: CheckSettings = field(default_factory=CheckSettings)
    resume: ResumeFolder = field(default_factory=lambda: ResumeFolder(None, {}))
    keep_images: int = 0

    def __post_init__(self) -> None:
        check_labels(self.labels, check_inputs(self.inputs))

    @classmethod
    def of(
        cls,
        smoothed: Smoothed,
        data: Images,
        settings: CheckSettings,
        *,
        name: str = "",
        out: Path | None = None,
        keep_images: int = 0,
    ) -> Self:
        """Check a classifier on all images of a data set, with stored results if `out` is given.

        Args:
            smoothed: classifier to check; with `out`, its model must be a `torch.nn.Module`.
            data: images on the device of the classifier; all of them are held in memory.
            settings: strength of the attacks and tolerance.
            name: name of the model in the stored configuration.
            out: folder that stores adversarial examples and findings, from which interrupted checks continue; None
                stores nothing.
            keep_images: see the attribute.

        Raises:
            ArgumentError: `out` is given for a model that is no `torch.nn.Module`.
            CheckpointError: `out` holds results of another classifier or of other settings.
            OutputError: `out` can't be written.
        """
        (batch,) = data.batches(len(data))
        if out is None:
            return cls(smoothed, *batch, settings, keep_images=keep_images)
        network, vote = smoothed.model, smoothed.vote
        if not isinstance(network, nn.Module):
            raise ArgumentError(
                "out",
                "a torch.nn.Module, whose weights identify the stored results",
                type(network).__name__,
                "omit it for other models",
            )
        configuration = {
            "protocol": "gradient-masking",
            "model": name,
            **asdict(settings),
            "noise": repr(smoothed.noisy_classifier.noise),
            "layer": smoothed.noisy_classifier.layer,
            "vote": vote if isinstance(vote, str) else getattr(vote, "__name__", "own"),
            "num_samples": smoothed.num_samples,
            "batch": BATCH,
        }
        resume = ResumeFolder(out, configuration | fingerprints(network, data))
        return cls(smoothed, *batch, settings, resume, keep_images)

    @cached_property
    def is_random(self) -> bool:
        """Whether two draws differ in their logits or gradients; if not, one vote of one draw suffices."""
        return not all(torch.equal(*pair.nan_to_num()) for pair in (self._probe(_logits), self._probe(_gradient)))

    @cached_property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return self._probe(_logits).shape[2]

    @cached_property
    def clean_accuracy(self) -> Float[Tensor, " n"]:
        """Accuracy of each clean image, (N,)."""
        return self._clean_votes[0]

    @property
    def clean_record(self) -> Tensors:
        """Record of the first vote on the kept clean images; empty if none are kept."""
        return self._clean_votes[1]

    @cached_property
    def white_box_examples(self) -> Float[Tensor, "n c h w"]:
        """Adversarial examples of the reference white-box attack, PGD on the expected loss."""
        return self.examples("white box", self.pgd())

    @cached_property
    def white_box_accuracy(self) -> Float[Tensor, " n"]:
        """Accuracy of each image under the reference white-box attack, (N,)."""
        return self._white_box_votes[0]

    @property
    def white_box_record(self) -> Tensors:
        """Record of the first vote on the kept images under the reference attack; empty if none are kept."""
        return self._white_box_votes[1]

    @cached_property
    def mean_network_examples(self) -> Float[Tensor, "n c h w"]:
        """Adversarial examples of PGD on the mean network (all noise off)."""
        attack = self.pgd(eot_samples=1)
        return self.examples(
            "mean network",
            lambda model, inputs, labels, generator=None: attack(mean_network(model), inputs, labels, generator),
        )

    @cached_property
    def mean_network_accuracy(self) -> Float[Tensor, " n"]:
        """Accuracy of the mean network on `mean_network_examples`, (N,) of 0 or 1."""

        @torch.no_grad()
        def correct(draw: NoisyClassifier, inputs: Tensor, labels: Tensor, _: object) -> Tensor:
            return (mean_network(draw)(inputs).argmax(1) == labels).float()

        return self.map_batches("mean network", correct, self.mean_network_examples)

    @cached_property
    def transfer_accuracy(self) -> Float[Tensor, " n"]:
        """Accuracy of the smoothed classifier on `mean_network_examples` (a transfer attack), (N,)."""
        return self.accuracy(self.mean_network_examples)

    @property
    def eot_samples(self) -> int:
        """Draws averaged for each gradient; 1 for a classifier without randomness."""
        return self.settings.eot_samples if self.is_random else 1

    def pgd(self, *, eps: float | None = None, steps: int | None = None, eot_samples: int | None = None) -> Attack:
        """PGD on the expected loss; arguments that are None come from the settings."""
        eps, steps = eps or self.settings.eps, steps or self.settings.steps
        objective = expected_loss(eot_samples or self.eot_samples)
        return lambda model, inputs, labels, generator=None: pgd(
            model, inputs, labels, eps=eps, steps=steps, objective=objective, generator=generator
        )

    def accuracy_under(self, name: str, attack: Attack, stream: int = 0) -> Float[Tensor, " n"]:
        """Accuracy of each image under `attack`, (N,); `name` seeds the attack, and `stream` seeds the votes."""
        return self.accuracy(self.examples(name, attack), stream)

    def examples(self, name: str, attack: Attack) -> Float[Tensor, "n c h w"]:
        """Adversarial examples of `attack`; pixels that are not finite are reset to those of the inputs.

        `name` seeds the attack and names the stored batches, so each attack needs its own name.
        """
        images = self.map_batches(name, attack, recorded=True)
        return torch.where(images.isfinite(), images, self.inputs)

    def accuracy(self, images: Tensor, stream: int = 0) -> Float[Tensor, " n"]:
        """Share of right votes on each of `images`, (N,); `stream` seeds the votes."""
        return self._votes(images, stream)[0]

    @cached_property
    def _clean_votes(self) -> tuple[Tensor, Tensors]:
        return self._votes(self.inputs, kept=self.keep_images)

    @cached_property
    def _white_box_votes(self) -> tuple[Tensor, Tensors]:
        return self._votes(self.white_box_examples, kept=self.keep_images)

    @property
    def vote_draws(self) -> int:
        """Draws of a vote; 1 for a classifier without randomness."""
        return self.smoothed.num_samples if self.is_random else 1

    def _votes(self, images: Tensor, stream: int = 0, *, kept: int = 0) -> tuple[Float[Tensor, " n"], Tensors]:
        """Share of right votes on each of `images`, and the record of the first vote on the first `kept` of them."""
        votes, draws = self.settings.votes if self.is_random else 1, self.vote_draws
        correct, record = torch.zeros(len(images), device=images.device), Tensors()
        for vote in range(votes):
            generator = seeded(mix(self.settings.seed, BatchStream.ATTACKED_VOTES, stream, vote), images.device)
            if kept and vote == 0:
                whole, record = tally_and_record(
                    self.smoothed, images, self.smoothed.vote, draws, kept=kept, generator=generator
                )
                tally = whole["vote"]
            else:
                tallies = self.smoothed.tally(images, (draws,), votes={"vote": self.smoothed.vote}, generator=generator)
                tally = tallies["vote"][draws]
            correct += tally.classes() == self.labels
        return correct / votes, record

    def map_batches(
        self, name: str, function: PerBatch, images: Tensor | None = None, *, recorded: bool = False
    ) -> Tensor:
        """Apply `function` batch by batch to `images` (by default the inputs), and join its rows.

        `name` seeds the noise and the generator of `function`; with `recorded`, batches are stored under this name.
        """
        images = self.inputs if images is None else images
        rows = list[Tensor]()
        for number, batch in enumerate(zip(images.split(BATCH), self.labels.split(BATCH), strict=True)):
            run = partial(self._run, name, number, *batch, function)
            if recorded:
                step = f"examples-{name.replace(' ', '-')}-batch{number:04d}"
                rows.append(
                    self.resume.compute_once(step, lambda run=run: {"examples": run()})["examples"].to(images.device)
                )
            else:
                rows.append(run())
        return torch.cat(rows)

    def _run(self, name: str, number: int, inputs: Tensor, labels: Tensor, function: PerBatch) -> Tensor:
        generator = seeded(mix(self._key(name), BatchStream.ATTACK, number), inputs.device)
        template = self.smoothed.noisy_classifier
        noisy_classifier = NoisyClassifier(template.model, template.noise, layer=template.layer, generator=generator)
        with noise_from(noisy_classifier, Fresh(generator)), eval_mode(noisy_classifier):
            return function(noisy_classifier, inputs, labels, generator)

    def _key(self, name: str) -> int:
        return mix(self.settings.seed, zlib.crc32(name.encode()))

    def _probe(self, function: PerBatch) -> Tensor:
        """Two results of `function` for the first images, stacked along a new first axis."""

        def twice(*batch: Any) -> Tensor:  # noqa: ANN401 - what `PerBatch` takes
            return torch.stack([function(*batch), function(*batch)])

        return self._run("probe", 0, self.inputs[:PROBE], self.labels[:PROBE], twice)


@torch.no_grad()
def _logits(draw: NoisyClassifier, inputs: Tensor, labels: Tensor, _: object) -> Tensor:
    return checked_logits(draw, inputs, labels)


def _gradient(draw: NoisyClassifier, inputs: Tensor, labels: Tensor, _: object) -> Tensor:
    return input_gradient(one_draw_loss(), draw, inputs, labels)


def mean_network(model: Classifier) -> Classifier:
    """The network of `model`, a `NoisyClassifier` or a plain classifier, without input noise and internal noise."""
    network = model.model if isinstance(model, NoisyClassifier) else model

    def forward(inputs: Tensor) -> Tensor:
        with noiseless(network):
            return network(inputs)

    return forward
