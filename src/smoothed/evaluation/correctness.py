"""Image-by-image correctness of votes on clean and attacked images, at every M and under every vote.

All randomness is a function of (seed, run, batch, draw, image) and does not depend on sigma: settings that differ in
sigma use the same noise, scaled, so their outcomes can be compared image by image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from smoothed.acceleration.fast import Fast
from smoothed.attacks import Attack
from smoothed.data.images import Images
from smoothed.data.imageset import to_float
from smoothed.evaluation.kept_votes import tally_and_keep
from smoothed.evaluation.progress import OnProgress, PassProgress, ignore_progress
from smoothed.evaluation.resume import ResumeFolder, Tensors
from smoothed.evaluation.streams import BatchStream
from smoothed.injection import noise_from
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import Fresh
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.input_noise import Noise
from smoothed.smoothing.noisy_classifier import NoisyClassifier
from smoothed.smoothing.votes import Vote, resolve
from smoothed.utils.checks import check_classes, check_labels, check_logits
from smoothed.utils.devices import Precision
from smoothed.utils.distributed import SINGLE_PROCESS, Processes
from smoothed.utils.modes import Classifier, eval_mode

# Images that share one draw of weight noise, like a batch in the paper. It is fixed so that results do not depend on
# the available memory.
BATCH = 250


@dataclass(frozen=True)
class Setting:
    """Input noise that is attacked and drawn once, and the votes and Ms that are read off its draws.

    Attributes:
        noise: input noise; None for none.
        votes: votes, as names or functions (values), by the names that rows give them (keys).
        num_samples: numbers of draws per image (M), all read off the same draws.
        layer: name of a submodule whose input receives the noise instead of the image; None for the image.
        pack_draws: whether one pass may hold several draws of an image (`Smoothed`).
    """

    noise: Noise | None
    votes: Mapping[str, str | Vote]
    num_samples: tuple[int, ...]
    layer: str | None = None
    pack_draws: bool | None = None


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What each vote of one setting did on each image; all tensors are on the CPU.

    The first axis ("kinds") holds clean images and, with an attack, attacked images. A vote whose class cannot change
    any more stops early, so `margin` is that of the draws taken. The margins of kept images in the first run are those
    of all draws, although `draws` says when these votes could have stopped.

    Attributes:
        right: whether each image was classified correctly.
        margin: share of the true class minus the largest other share, in [-1, 1].
        draws: number of draws after which no further draw could change the class, at most M.
        shares: vote shares of the first images in the first run; no images where no votes are kept.
        images: these images before the attack, (kept, C, H, W).
        adversarial: the same after it, (kept, C, H, W); as `images` without an attack.
    """

    right: Bool[Tensor, "kinds votes ms runs images"]
    margin: Float[Tensor, "kinds votes ms runs images"]
    draws: Int[Tensor, "kinds votes ms runs images"]
    shares: Float[Tensor, "kinds votes ms recorded k"]
    images: Float[Tensor, "kept c h w"]
    adversarial: Float[Tensor, "kept c h w"]

    @classmethod
    def joined(cls, runs: Sequence[Sequence[Tensors]]) -> Self:
        """Join the tensors of the batches of each run."""

        def of_all_runs(name: str) -> Tensor:
            return torch.stack([torch.cat([batch[name] for batch in batches], -1) for batches in runs], -2)

        def of_first_run(name: str, dim: int) -> Tensor:
            return torch.cat([batch[name] for batch in runs[0]], dim)

        return cls(
            **{name: of_all_runs(name) for name in ("right", "margin", "draws")},
            shares=of_first_run("shares", 3),
            **{name: of_first_run(name, 0) for name in ("images", "adversarial")},
        )


def measure_outcomes(
    model: nn.Module,
    data: Images,
    settings: Sequence[Setting],
    attack: Attack | None,
    *,
    runs: int,
    seed: int,
    precision: Precision,
    resume: ResumeFolder,
    chunk_size: int = 250,
    keep_images: int = 0,
    keep_votes: bool = True,
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress = ignore_progress,
    attack_passes: int = 0,
    on_passes: OnProgress = ignore_progress,
) -> list[Outcomes]:
    """Attack and vote once for each setting, run and batch, and record what the votes did on each image.

    Args:
        model: network from images in [0, 1] to logits (N, K), on the device of the data.
        data: images to evaluate.
        settings: noises, votes and Ms to evaluate.
        attack: attack on the noisy classifier of each setting; None evaluates clean images only.
        runs: number of repetitions, each with fresh attacks and draws.
        seed: seed of all randomness.
        precision: number format of the votes; attacks use float32.
        resume: folder that stores finished batches.
        chunk_size: rows of one forward pass of the vote.
        keep_images: number of images, from the first on, whose vote shares and adversarial images are returned. Their
            votes in the first run take all draws.
        keep_votes: whether these votes are kept; if not, only the images are, and their votes may stop early.
        processes: processes that share the batches; each of them gets all outcomes. With fewer batches than processes,
            all of them attack each batch and share its vote.
        on_progress: called after each batch with the finished batches of this process and their total.
        attack_passes: estimated passes of the attack per image, for `on_passes`.
        on_passes: called after each pass with the finished passes of this process and an estimate of their total, as
            `PassProgress` counts them.

    Returns:
        The outcomes of each setting.
    """
    attacked_model, voter = Fast(model), Fast(model, precision)
    starts = range(0, len(data), BATCH)
    work = [(index, run, start) for index in range(len(settings)) for run in range(runs) for start in starts]
    whole_batches = len(work) >= processes.count
    own = work[processes.rank :: processes.count] if whole_batches else work
    kinds = 1 if attack is None else 2

    def passes(index: int, start: int) -> int:
        return min(BATCH, len(data) - start) * (attack_passes + kinds * max(settings[index].num_samples))

    done, total = 0, len(own)
    progress = PassProgress(sum(passes(index, start) for index, _, start in own), on_passes)

    def measure(index: int, run: int, start: int) -> Tensors:
        nonlocal done
        setting, number = settings[index], start // BATCH
        # Names of layers are those of the model, which its faster forms do not have.
        faster = setting.layer is None
        smoothed = Smoothed(
            voter if faster else model,
            setting.noise,
            layer=setting.layer,
            chunk_size=chunk_size,
            pack_draws=setting.pack_draws,
        )

        def compute() -> Tensors:
            ((inputs, labels),) = data.subset(slice(start, start + BATCH)).batches(BATCH)
            return _measure(
                smoothed,
                attack,
                setting,
                inputs,
                labels,
                attacked_model=attacked_model if faster else model,
                key=mix(seed, run, number),
                kept=min(max(keep_images - start, 0), len(labels)) if run == 0 else 0,
                keep_votes=keep_votes,
                processes=SINGLE_PROCESS if whole_batches else processes,
                progress=progress,
                attack_passes=attack_passes,
            )

        with progress.batch(passes(index, start)):
            tensors = resume.compute_once(f"sigma{index}-run{run}-batch{number:04d}", compute)
        done += 1
        on_progress(done, total)
        return tensors

    pieces = [partial(measure, *piece) for piece in work]
    batches = processes.divide(pieces) if whole_batches else [piece() for piece in pieces]
    size = len(starts)
    of_runs = [batches[first : first + size] for first in range(0, len(batches), size)]
    return [Outcomes.joined(of_runs[first : first + runs]) for first in range(0, len(of_runs), runs)]


def _measure(
    smoothed: Smoothed,
    attack: Attack | None,
    setting: Setting,
    inputs: Tensor,
    labels: Tensor,
    *,
    attacked_model: Classifier,
    key: int,
    kept: int,
    keep_votes: bool,
    processes: Processes,
    progress: PassProgress,
    attack_passes: int,
) -> Tensors:
    """The outcomes of one batch: `right`, `margin` and `draws` (kinds, votes, M, N), and those of its kept images."""
    check_labels(labels, inputs)
    streams, adversarial = [(BatchStream.CLEAN_VOTES, inputs)], inputs
    if attack is not None:
        with progress.part(len(inputs) * attack_passes, attacked_model):
            adversarial = attack_noisy_classifier(
                attacked_model,
                setting.noise,
                attack,
                inputs,
                labels,
                seed=mix(key, BatchStream.ATTACK),
                layer=setting.layer,
            )
        streams.append((BatchStream.ATTACKED_VOTES, adversarial))
    votes = {name: resolve(vote) for name, vote in setting.votes.items()}
    recorded = kept if keep_votes else 0
    measured: dict[str, list[Tensor]] = {"right": [], "margin": [], "draws": [], "shares": []}
    for stream, images in streams:
        take_tally = partial(
            smoothed.tally,
            images,
            setting.num_samples,
            votes=votes,
            generator=seeded(mix(key, stream), inputs.device),
            processes=processes,
        )
        with progress.part(len(inputs) * max(setting.num_samples), smoothed.model):
            tallies, draws = tally_and_keep(
                lambda rule, take=take_tally: take(stop=rule), votes, len(images), recorded, processes
            )
        for vote, count in product(votes, setting.num_samples):
            tally = tallies[vote][count]
            check_classes(labels, tally.scores.shape[1])
            measured["right"].append(tally.classes() == labels)
            measured["margin"].append(_share_margins(tally.shares, labels))
            measured["draws"].append(draws[vote][count].to(torch.int32))
            measured["shares"].append(tally.shares[:recorded])
    axes = (len(streams), len(setting.votes), len(setting.num_samples))
    tensors = {name: torch.stack(values).unflatten(0, axes) for name, values in measured.items()}
    return {**tensors, "images": inputs[:kept], "adversarial": adversarial[:kept]}


def _share_margins(shares: Float[Tensor, "n k"], labels: Tensor) -> Float[Tensor, " n"]:
    """The share of the true class minus the largest other share."""
    true = shares.gather(1, labels[:, None])
    others = shares.scatter(1, labels[:, None], -1.0)
    return (true[:, 0] - others.amax(1)).float()


def attack_noisy_classifier(
    model: Classifier,
    noise: Noise | None,
    attack: Attack,
    inputs: Tensor,
    labels: Tensor,
    *,
    seed: int,
    layer: str | None = None,
) -> Tensor:
    """Attack the noisy classifier: the attacker sees one fresh draw of all noise at each forward pass.

    Args:
        model: classifier from images to logits (N, K); its internal noise and the input noise share one generator.
        noise: input noise; None for none.
        attack: attack with its options set; it runs in eval mode.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes, (N,) int64.
        seed: seed of the noise and of the attack's own randomness.
        layer: name of a submodule whose input receives the noise instead of the image; None for the image.

    Returns:
        Adversarial inputs of the shape of `inputs`.
    """
    generator = seeded(seed, inputs.device)
    noisy_classifier = NoisyClassifier(model, noise, layer=layer, generator=generator)
    with noise_from(noisy_classifier, Fresh(generator)), eval_mode(noisy_classifier):
        return attack(noisy_classifier, inputs, labels, generator=generator)


@torch.no_grad()
def two_draws(
    noisy_classifier: NoisyClassifier, inputs: Float[Tensor, "n c h w"], seed: int
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """Logits of two draws, which are equal if the classifier is not random.

    Args:
        noisy_classifier: the network with its noise; it stays as it is.
        inputs: images in [0, 1].
        seed: seed of both draws.
    """
    generator = seeded(seed, inputs.device)
    seeded_classifier = NoisyClassifier(
        noisy_classifier.model, noisy_classifier.noise, layer=noisy_classifier.layer, generator=generator
    )
    with noise_from(seeded_classifier, Fresh(generator)), eval_mode(seeded_classifier):
        first, second = seeded_classifier(inputs), seeded_classifier(inputs)
    return check_logits(first, len(inputs)), check_logits(second, len(inputs))


def single_draw_accuracy(
    model: Classifier,
    data: Images,
    *,
    attack: Attack | None = None,
    batch_size: int = 250,
    seed: int = 0,
) -> float:
    """Accuracy of a single draw of `model`, on clean images or under an attack.

    Args:
        model: classifier from images to logits (N, K). It runs in eval mode and returns to its previous mode.
        data: images on the device of the model.
        attack: attack to apply first, with fresh network noise at each gradient; None evaluates clean images.
        batch_size: images of one forward pass; they share one draw of weight noise.
        seed: seed of the attack's starting points and of the network noise.

    Returns:
        Share of correctly classified images, in [0, 1].
    """
    return count_correct(model, data, attack=attack, batch_size=batch_size, seed=seed) / len(data)


def count_correct(
    model: Classifier,
    data: Images,
    *,
    attack: Attack | None = None,
    batch_size: int = 250,
    seed: int = 0,
    share: tuple[int, int] = (0, 1),
) -> int:
    """Number of images that a single draw of `model` classifies correctly, on clean images or under an attack.

    Args:
        model: classifier from images to logits (N, K). It runs in eval mode and returns to its previous mode.
        data: images on the device of the model.
        attack: attack to apply first, with fresh network noise at each gradient; None evaluates clean images.
        batch_size: images of one forward pass; they share one draw of weight noise.
        seed: seed of the attack's starting points and of the network noise.
        share: (p, P) restricts the count to the batches p, p + P, ...; the counts of P processes add up to the total.

    Returns:
        Number of correctly classified images.
    """
    correct = 0
    batches = list(enumerate(torch.arange(len(data)).split(batch_size)))[share[0] :: share[1]]
    loaded = data.load([index for _, index in batches])
    for (number, _), (images, labels) in zip(batches, loaded, strict=True):
        inputs = to_float(images)
        generator = seeded(mix(seed, number), inputs.device)
        with noise_from(model, Fresh(generator)), eval_mode(model):
            attacked = inputs if attack is None else attack(model, inputs, labels, generator)
            correct += int((_predicted(model, attacked) == labels).sum())
    return correct


@torch.no_grad()
def _predicted(model: Classifier, images: Tensor) -> Tensor:
    return check_logits(model(images), len(images)).argmax(1)
