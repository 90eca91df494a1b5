"""Which images a vote gets right, clean and attacked, at every M and under every vote of one set of draws.

All randomness is a function of (seed, run, batch, draw, image), and of no sigma: settings that differ in sigma meet the
same noise, scaled, so that their outcomes on an image can be compared one by one.
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
from smoothed.evaluation.attacking import attack_draws
from smoothed.evaluation.resume import Records, Tensors
from smoothed.rng.seeds import mix, seeded
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.input_noise import ScaledNoise
from smoothed.utils.devices import Precision
from smoothed.utils.distributed import ALONE, Processes

# Images that share one draw of weight noise, as a batch does in the paper: fixed, so that memory decides no number.
BATCH = 250

# Which stream of randomness a key belongs to, so that the attacker's draws are never the defender's.
ATTACK, CLEAN, ROBUST = range(3)

OnProgress = Callable[[int, int], None]
"""Called with the batches done and their total."""


def ignore_progress(done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Setting:
    """One attack and one set of draws.

    Attributes:
        noise: of the input.
        votes: by the names of their rows.
        at: every M.
    """

    noise: ScaledNoise
    votes: Mapping[str, str]
    at: tuple[int, ...]


def measure_outcomes(
    model: nn.Module,
    data: Images,
    settings: Sequence[Setting],
    attack: Attack | None,
    *,
    runs: int,
    seed: int,
    precision: Precision,
    records: Records,
    chunk_size: int = 250,
    processes: Processes = ALONE,
    on_progress: OnProgress = ignore_progress,
) -> list[Bool[Tensor, "kinds votes ms runs images"]]:
    """Attack once and tally once for each setting, run and batch.

    Args:
        model: from images to logits (N, K), on the data's device.
        data: the images to measure on.
        settings: what to measure.
        attack: sees the noise of the setting that it attacks; None measures clean images only.
        runs: how often, each with fresh attacks and draws.
        seed: of everything random.
        precision: of the votes; attacks are float32.
        records: keeps the batches done.
        chunk_size: rows of one forward pass of the vote.
        processes: those that share the batches; where there are fewer batches than processes, they all attack each
            batch and share its vote. All of them get the outcomes.
        on_progress: called after each batch of this process, with their total.

    Returns:
        For each setting whether each image was right, on the CPU; the kinds are clean and, with an attack, attacked.
    """
    attacked, voter = Fast(model), Fast(model, precision)
    starts = range(0, len(data), BATCH)
    work = [(place, run, start) for place in range(len(settings)) for run in range(runs) for start in starts]
    alone = len(work) >= processes.count
    done, total = 0, len(work[processes.rank :: processes.count]) if alone else len(work)

    def measure(place: int, run: int, start: int) -> Tensor:
        nonlocal done
        setting, number = settings[place], start // BATCH
        smoothed = Smoothed(voter, setting.noise, chunk_size=chunk_size)
        (batch,) = data.subset(slice(start, start + BATCH)).batches(BATCH)
        compute = partial(
            _right,
            smoothed,
            attack,
            setting,
            *batch,
            attacked=attacked,
            key=mix(seed, run, number),
            processes=ALONE if alone else processes,
        )
        right = records.once(f"sigma{place}-run{run}-batch{number:04d}", compute)["right"]
        done += 1
        on_progress(done, total)
        return right

    pieces = [partial(measure, *piece) for piece in work]
    found = processes.divide(pieces) if alone else [piece() for piece in pieces]
    each = runs * len(starts)  # batches of a setting, run by run
    return [
        torch.stack(
            [torch.cat(found[first : first + len(starts)], -1) for first in range(start, start + each, len(starts))], -2
        )
        for start in range(0, len(found), each)
    ]


def _right(
    smoothed: Smoothed,
    attack: Attack | None,
    setting: Setting,
    inputs: Tensor,
    labels: Tensor,
    *,
    attacked: Fast,
    key: int,
    processes: Processes,
) -> Tensors:
    """Whether each image of a batch is right, (kinds, votes, M, N)."""
    streams = [(CLEAN, inputs)]
    if attack is not None:
        noise = smoothed.one_draw.noise
        streams.append((ROBUST, attack_draws(attacked, noise, attack, inputs, labels, seed=mix(key, ATTACK))))
    right: list[Tensor] = []
    for stream, images in streams:
        generator = seeded(mix(key, stream), inputs.device)
        # Only classes are asked for, so that a vote may stop where they are sure.
        tallies = smoothed.tally(
            images, setting.at, votes=setting.votes, stop="exact", generator=generator, processes=processes
        )
        right += [tallies[vote][count].classes() == labels for vote in setting.votes for count in setting.at]
    return {"right": torch.stack(right).view(len(streams), len(setting.votes), len(setting.at), len(labels))}
