"""Image-by-image correctness of votes on clean and attacked images, at every M and under every vote.

All randomness is a function of (seed, run, batch, draw, image) and does not depend on sigma: settings that differ in
sigma use the same noise, scaled, so their outcomes can be compared image by image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from smoothed.acceleration.fast import Fast
from smoothed.attacks import Attack
from smoothed.data.images import Images
from smoothed.data.imageset import to_float
from smoothed.evaluation.resume import ResumeFolder, Tensors
from smoothed.evaluation.streams import BatchStream
from smoothed.injection import noise_from
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import Fresh
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.input_noise import Noise, ScaledNoise
from smoothed.smoothing.noisy_classifier import NoisyClassifier
from smoothed.utils.checks import check_logits
from smoothed.utils.devices import Precision
from smoothed.utils.distributed import SINGLE_PROCESS, Processes
from smoothed.utils.modes import Classifier, eval_mode

# Images that share one draw of weight noise, like a batch in the paper. It is fixed so that results do not depend on
# the available memory.
BATCH = 250

OnProgress = Callable[[int, int], None]
"""Called with the finished amount of work (batches, unless stated) and its total."""


def ignore_progress(done: int, total: int) -> None:
    """Progress callback that does nothing."""


@dataclass(frozen=True)
class Setting:
    """Input noise that is attacked and drawn once, and the votes and Ms that are read off its draws.

    Attributes:
        noise: input noise.
        votes: names of votes (values) by the names that rows give them (keys).
        num_samples: numbers of draws per image (M), all read off the same draws.
    """

    noise: ScaledNoise
    votes: Mapping[str, str]
    num_samples: tuple[int, ...]


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
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress = ignore_progress,
) -> list[Bool[Tensor, "kinds votes ms runs images"]]:
    """Attack and vote once for each setting, run and batch, and record which images are classified correctly.

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
        processes: processes that share the batches; each of them gets all outcomes. With fewer batches than processes,
            all of them attack each batch and share its vote.
        on_progress: called after each batch with the finished batches of this process and their total.

    Returns:
        For each setting, whether each image was classified correctly, on the CPU. The first axis holds clean images
        and, with an attack, attacked images.
    """
    attacked_model, voter = Fast(model), Fast(model, precision)
    starts = range(0, len(data), BATCH)
    work = [(index, run, start) for index in range(len(settings)) for run in range(runs) for start in starts]
    whole_batches = len(work) >= processes.count
    done, total = 0, len(work[processes.rank :: processes.count]) if whole_batches else len(work)

    def measure(index: int, run: int, start: int) -> Tensor:
        nonlocal done
        setting, number = settings[index], start // BATCH
        smoothed = Smoothed(voter, setting.noise, chunk_size=chunk_size)
        (batch,) = data.subset(slice(start, start + BATCH)).batches(BATCH)
        compute = partial(
            _right,
            smoothed,
            attack,
            setting,
            *batch,
            attacked_model=attacked_model,
            key=mix(seed, run, number),
            processes=SINGLE_PROCESS if whole_batches else processes,
        )
        right = resume.compute_once(f"sigma{index}-run{run}-batch{number:04d}", compute)["right"]
        done += 1
        on_progress(done, total)
        return right

    pieces = [partial(measure, *piece) for piece in work]
    batches = processes.divide(pieces) if whole_batches else [piece() for piece in pieces]
    size = len(starts)
    runs_of_all = [torch.cat(batches[first : first + size], -1) for first in range(0, len(batches), size)]
    return [torch.stack(runs_of_all[first : first + runs], -2) for first in range(0, len(runs_of_all), runs)]


def _right(
    smoothed: Smoothed,
    attack: Attack | None,
    setting: Setting,
    inputs: Tensor,
    labels: Tensor,
    *,
    attacked_model: Fast,
    key: int,
    processes: Processes,
) -> Tensors:
    """Whether each image of a batch is classified correctly, (kinds, votes, M, N)."""
    streams = [(BatchStream.CLEAN_VOTES, inputs)]
    if attack is not None:
        noise = smoothed.noisy_classifier.noise
        streams.append(
            (
                BatchStream.ATTACKED_VOTES,
                attack_noisy_classifier(
                    attacked_model, noise, attack, inputs, labels, seed=mix(key, BatchStream.ATTACK)
                ),
            )
        )
    right: list[Tensor] = []
    for stream, images in streams:
        generator = seeded(mix(key, stream), inputs.device)
        # Only the classes are used, so a vote may stop as soon as they can't change any more.
        tallies = smoothed.tally(
            images, setting.num_samples, votes=setting.votes, stop="exact", generator=generator, processes=processes
        )
        right += [tallies[vote][count].classes() == labels for vote in setting.votes for count in setting.num_samples]
    return {"right": torch.stack(right).view(len(streams), len(setting.votes), len(setting.num_samples), len(labels))}


def attack_noisy_classifier(
    model: Classifier, noise: Noise | None, attack: Attack, inputs: Tensor, labels: Tensor, *, seed: int
) -> Tensor:
    """Attack the noisy classifier: the attacker sees one fresh draw of all noise at each forward pass.

    Args:
        model: classifier from images to logits (N, K); its internal noise and the input noise share one generator.
        noise: input noise; None for none.
        attack: attack with its options set; it runs in eval mode.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes, (N,) int64.
        seed: seed of the noise and of the attack's own randomness.

    Returns:
        Adversarial inputs of the shape of `inputs`.
    """
    generator = seeded(seed, inputs.device)
    noisy_classifier = NoisyClassifier(model, noise, generator=generator)
    with noise_from(noisy_classifier, Fresh(generator)), eval_mode(noisy_classifier):
        return attack(noisy_classifier, inputs, labels, generator=generator)


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
            correct += int((_classes(model, attacked) == labels).sum())
    return correct


@torch.no_grad()
def _classes(model: Classifier, images: Tensor) -> Tensor:
    return check_logits(model(images), len(images)).argmax(1)
