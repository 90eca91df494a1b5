"""What a vote makes of adversarial images that are given, whichever network they were made on.

The draws are a function of (seed, batch, draw, image), in streams of their own: no attack has seen them, and no vote in
the record of the images was taken with them.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from smoothed.acceleration.fast import Fast
from smoothed.evaluation.correctness import BATCH, OnProgress, ignore_progress
from smoothed.evaluation.fresh_votes import Votes, vote_afresh
from smoothed.evaluation.paper_protocol.evaluate import SIGMA_UNITS, Protocol
from smoothed.evaluation.resume import Records, Tensors, circumstances, digest
from smoothed.evaluation.saved_examples.load import Given
from smoothed.evaluation.worst_case.rows import Accuracy
from smoothed.rng.seeds import mix
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.votes import VOTES
from smoothed.utils.checks import check_choice, check_not_negative, check_positive
from smoothed.utils.devices import Precision

# Which streams of randomness these draws are, beside those of attacks and of the votes in their records.
STREAMS = {"clean": 10, "robust": 11}


@dataclass(frozen=True)
class JudgingProtocol:
    """How to vote, as plain values.

    Attributes:
        sigma: deviation of the input noise, in `sigma_units`.
        sigma_units: `normalized` (the paper's) or `pixel`.
        noise: the law of the input noise.
        vote: the name of the vote.
        num_samples: draws of a vote, M.
        votes_per_image: fresh votes on each image, clean and adversarial.
        seed: of all draws.
        precision: likewise.
    """

    sigma: float
    sigma_units: str = "normalized"
    noise: str = "gaussian"
    vote: str = "prediction"
    num_samples: int = 64
    votes_per_image: int = 1
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_not_negative(self.sigma, "sigma")
        check_choice(self.sigma_units, SIGMA_UNITS, "sigma_units")
        check_choice(self.noise, NOISES, "noise")
        check_choice(self.vote, VOTES, "vote")
        check_positive(self.num_samples, "num_samples")
        check_positive(self.votes_per_image, "votes_per_image")


@dataclass(frozen=True)
class JudgedRow:
    """What one vote is worth on adversarial images that were given.

    Attributes:
        model: name or path of the judged checkpoint.
        vote: the vote's name.
        num_samples: draws of a vote, M; `prediction` of 1 is a single draw with all of its noise.
        sigma: deviation of the input noise, in `sigma_units`.
        sigma_units: `normalized` (the paper's) or `pixel`.
        noise: the law of the input noise.
        attack: the name of the attack that made the images.
        eps: its radius, in pixel units of [0, 1], or the number of pixels in L0.
        norm: of the radius: `linf`, `l2` or `l0`.
        made_on: name or path of the checkpoint that was attacked.
        made_at: the deviation of the input noise that it had, in its own units.
        own: whether it had the weights of `model` and the input noise of these votes; else the images are transferred.
        clean: expected accuracy of a vote on clean images, in [0, 1].
        clean_interval: its 95 % Wilson interval over images (`Accuracy`).
        robust: likewise on the adversarial ones.
        robust_interval: likewise.
        data: name of the images.
        images: how many.
        votes_per_image: fresh votes on each image that the accuracies are means over.
        precision: of the votes.
        seed: of all draws.
    """

    model: str
    vote: str
    num_samples: int
    sigma: float
    sigma_units: str
    noise: str
    attack: str
    eps: float
    norm: str
    made_on: str
    made_at: float
    own: bool
    clean: float
    clean_interval: tuple[float, float]
    robust: float
    robust_interval: tuple[float, float]
    data: str
    images: int
    votes_per_image: int
    precision: str
    seed: int

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return asdict(self)


def judge(
    model: nn.Module,
    given: Given,
    protocol: JudgingProtocol,
    *,
    name: str,
    out: Path | None = None,
    chunk_size: int = 250,
    on_progress: OnProgress = ignore_progress,
) -> list[JudgedRow]:
    """Vote afresh on adversarial images and on what they were made of.

    Args:
        model: from images to logits (N, K), on the device of the clean images.
        given: the images.
        protocol: how to vote.
        name: of the model, for the rows.
        out: a folder for the batches done, from which a killed judgement goes on; None keeps nothing.
        chunk_size: rows of one forward pass.
        on_progress: called after each batch, done now or before.

    Returns:
        The row of single draws, all of those that the votes took, and the row of the vote.

    Raises:
        ArgumentError: a sigma in units that the model does not know.
        CheckpointError: `out` holds another configuration's batches.
        OutputError: `out` can't be written.
    """
    smoothed = Smoothed(
        Fast(model, protocol.precision),
        Protocol(noise=protocol.noise, sigma_units=protocol.sigma_units).input_noise(model, protocol.sigma),
        vote=protocol.vote,
        num_samples=protocol.num_samples,
        chunk_size=chunk_size,
        seed=protocol.seed,
    )
    around = circumstances(model, given.clean)
    adversarial = digest({"images": given.adversarial})
    configuration = {"protocol": "judge", "model": name, **asdict(protocol), **around, "adversarial": adversarial}
    records = Records(out, configuration)
    batches, total = list[Tensors](), -(-len(given.clean) // BATCH)
    for number, batch in enumerate(given.batches(BATCH)):
        compute = partial(_judge_batch, smoothed, *batch, protocol=protocol, key=mix(protocol.seed, number))
        batches.append(records.once(f"batch{number:04d}", compute))
        on_progress(number + 1, total)
    votes = {
        stream: Votes.joined(
            [
                Votes.from_tensors({key.removeprefix(f"{stream}-"): each for key, each in batch.items()})
                for batch in batches
            ]
        )
        for stream in STREAMS
    }
    own = given.record["weights"] == around["weights"] and all(
        given.record[name] == getattr(protocol, name) for name in ("noise", "sigma", "sigma_units")
    )
    return _rows(votes, given, protocol, model=name, own=own)


def _judge_batch(
    smoothed: Smoothed, inputs: Tensor, made: Tensor, labels: Tensor, *, protocol: JudgingProtocol, key: int
) -> Tensors:
    """The counts of the votes on clean and on adversarial images."""
    counts = Tensors()
    for (name, stream), images in zip(STREAMS.items(), (inputs, made), strict=True):
        seed = mix(key, stream)
        votes = vote_afresh(smoothed, images, labels, protocol.votes_per_image, seed=seed, precision=protocol.precision)
        counts |= {f"{name}-{field}": values for field, values in votes.to_tensors().items()}
    return counts


def _rows(votes: dict[str, Votes], given: Given, protocol: JudgingProtocol, **more: Any) -> list[JudgedRow]:  # noqa: ANN401 - model and own
    """The row of single draws and that of the vote; each draw of a vote is a vote of M = 1."""
    common = {
        **more,
        **{field: given.record[field] for field in ("attack", "eps", "norm")},
        "made_on": given.record["model"],
        "made_at": given.record["sigma"],
        "data": given.clean.name,
        "images": len(given.clean),
    }
    as_voted = asdict(protocol)
    draws = protocol.votes_per_image * protocol.num_samples
    singly = {**as_voted, "vote": "prediction", "num_samples": 1, "votes_per_image": draws}
    one_draw = {stream: seen.right_draws.double() / seen.draws for stream, seen in votes.items()}
    vote = {stream: seen.shares for stream, seen in votes.items()}
    return [
        JudgedRow(**common, **setting, **_accuracies(shares))
        for setting, shares in ((singly, one_draw), (as_voted, vote))
    ]


def _accuracies(shares: dict[str, Tensor]) -> dict[str, Any]:
    found = {name: Accuracy.of_shares([values]) for name, values in shares.items()}
    means = {name: accuracy.mean for name, accuracy in found.items()}
    return means | {f"{name}_interval": accuracy.interval for name, accuracy in found.items()}
