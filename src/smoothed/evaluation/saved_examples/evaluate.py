"""Accuracy of a vote on saved adversarial images, which may come from the same or from another model.

The draws are a function of (seed, batch, draw, image) in separate random streams: they are independent of the draws
that the attack saw and of the votes recorded with the images.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from smoothed.acceleration.fast import Fast
from smoothed.evaluation.correctness import BATCH, OnProgress, ignore_progress
from smoothed.evaluation.fresh_votes import VoteCounts, take_and_record_votes
from smoothed.evaluation.kept_votes import joined_records
from smoothed.evaluation.progress import PassProgress
from smoothed.evaluation.results import Accuracy
from smoothed.evaluation.resume import ResumeFolder, Tensors, fingerprint, fingerprints
from smoothed.evaluation.saved_examples.load import SavedExamples
from smoothed.evaluation.streams import BatchStream
from smoothed.rng.seeds import mix
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.config import SmoothingConfig
from smoothed.utils.checks import check_positive
from smoothed.utils.devices import Precision

STREAMS = {"clean": BatchStream.SAVED_CLEAN_VOTES, "robust": BatchStream.SAVED_ATTACKED_VOTES}


@dataclass(frozen=True)
class SavedExamplesProtocol:
    """Settings of an evaluation on saved examples.

    Attributes:
        smoothing: input noise, vote and M of the smoothed classifier.
        votes_per_image: number of fresh votes on each clean and each adversarial image.
        seed: seed of all draws.
        precision: number format of the forward passes.
    """

    smoothing: SmoothingConfig
    votes_per_image: int = 1
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_positive(self.votes_per_image, "votes_per_image")


@dataclass(frozen=True)
class SavedExamplesRow:
    """Accuracy of one vote on saved adversarial images and on the clean images they come from.

    Attributes:
        model: name or path of the evaluated checkpoint.
        vote: name of the vote.
        num_samples: draws of a vote (M); a `prediction` vote of M = 1 is a single draw.
        sigma: standard deviation of the input noise in pixel units of [0, 1], the mean over channels; None for a noise
            of your own that states none.
        sigma_normalized: the same deviation divided by the data set's deviation (the paper's unit); None if the model
            has no `normalize` layer.
        noise: distribution of the input noise.
        attack: name of the attack that made the images.
        eps: radius of the attack in pixel units of [0, 1], or its number of pixels for `l0`.
        norm: norm of the radius: `linf`, `l2` or `l0`.
        attacked_model: name or path of the checkpoint that was attacked.
        attacked_sigma: standard deviation of the input noise under attack, in pixel units of [0, 1].
        same_classifier: whether the attacked classifier had the weights of `model` and the noise of these votes, at
            the same layer; otherwise the images are a transfer attack.
        clean: expected accuracy of a vote on clean images, in [0, 1].
        clean_interval: 95 % interval of `clean` over images (`Accuracy`).
        robust: expected accuracy of a vote on the adversarial images, in [0, 1].
        robust_interval: 95 % interval of `robust` over images.
        data: name of the data set.
        images: number of images.
        votes_per_image: number of votes on each image that the accuracies average over.
        precision: number format of the forward passes.
        seed: seed of all draws.
    """

    model: str
    vote: str
    num_samples: int
    sigma: float | None
    sigma_normalized: float | None
    noise: str
    attack: str
    eps: float
    norm: str
    attacked_model: str
    attacked_sigma: float | None
    same_classifier: bool
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


@dataclass(frozen=True, eq=False)
class SavedExamplesResult:
    """Rows of an evaluation on saved examples, and the votes on each image.

    Attributes:
        rows: the row of single draws and the row of the vote.
        votes: counts of the votes on the `clean` and on the `robust` images, (N,) each.
        records: record of the first of these votes on the kept images (`take_and_record_votes`), by the same names;
            each is empty if no images are kept.
    """

    rows: list[SavedExamplesRow]
    votes: dict[str, VoteCounts]
    records: dict[str, Tensors]


def evaluate_examples(
    model: nn.Module,
    examples: SavedExamples,
    protocol: SavedExamplesProtocol,
    *,
    name: str,
    keep_images: int = 0,
    out: Path | None = None,
    chunk_size: int = 250,
    on_progress: OnProgress = ignore_progress,
    on_passes: OnProgress = ignore_progress,
) -> SavedExamplesResult:
    """Evaluate a model with fresh votes on saved adversarial images and on the clean images they come from.

    Args:
        model: network from images in [0, 1] to logits (N, K), on the device of the clean images.
        examples: adversarial and clean images.
        protocol: settings of the votes.
        name: name of the model in the rows.
        keep_images: number of images, from the first on, on which the first vote is recorded.
        out: folder that stores finished batches, from which an interrupted evaluation continues; None stores nothing.
        chunk_size: rows of one forward pass.
        on_progress: called after each batch, including batches loaded from `out`.
        on_passes: called after each pass with the finished passes and their total.

    Returns:
        Two rows: accuracy of single draws (over all draws of the votes), and accuracy of the vote; the votes; and the
        records.

    Raises:
        ArgumentError: sigma is given in normalised units, but the model has no `normalize` layer.
        CheckpointError: `out` holds the batches of another configuration.
        OutputError: `out` can't be written.
    """
    smoothed = protocol.smoothing.smooth(
        model, voter=Fast(model, protocol.precision), chunk_size=chunk_size, seed=protocol.seed
    )
    noise = protocol.smoothing.noise.to_json(model)
    place = {**noise, "layer": protocol.smoothing.layer}
    prints = fingerprints(model, examples.clean)
    configuration = {
        "protocol": "saved-examples",
        "model": name,
        **asdict(protocol),
        "smoothing": protocol.smoothing.settings(),
        **prints,
        "adversarial": fingerprint({"images": examples.adversarial}),
        "keep_images": keep_images,
    }
    resume = ResumeFolder(out, configuration)
    batches, total = list[Tensors](), -(-len(examples.clean) // BATCH)
    passes = protocol.votes_per_image * protocol.smoothing.num_samples
    progress = PassProgress(len(STREAMS) * passes * len(examples.clean), on_passes)
    for number, batch in enumerate(examples.batches(BATCH)):
        key = mix(protocol.seed, number)
        kept = min(max(keep_images - number * BATCH, 0), len(batch[0]))
        compute = partial(_vote_on_batch, smoothed, *batch, protocol=protocol, key=key, kept=kept, progress=progress)
        with progress.batch(len(STREAMS) * passes * len(batch[0])):
            batches.append(resume.compute_once(f"batch{number:04d}", compute))
        on_progress(number + 1, total)
    by_stream = {
        stream: [{key.removeprefix(f"{stream}-"): tensor for key, tensor in batch.items()} for batch in batches]
        for stream in STREAMS
    }
    votes = {
        stream: VoteCounts.concatenated([VoteCounts.from_tensors(batch) for batch in of_stream])
        for stream, of_stream in by_stream.items()
    }
    records = {stream: joined_records(of_stream) for stream, of_stream in by_stream.items()}
    same_classifier = examples.record["weights"] == prints["weights"] and all(
        examples.record.get(key) == value for key, value in place.items()
    )
    rows = _rows(votes, examples, protocol, noise, model=name, same_classifier=same_classifier)
    return SavedExamplesResult(rows, votes, records)


def _vote_on_batch(
    smoothed: Smoothed,
    inputs: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    *,
    protocol: SavedExamplesProtocol,
    key: int,
    kept: int,
    progress: PassProgress,
) -> Tensors:
    """Counts of the votes on clean and on adversarial images, and the record of the first one on the kept ones."""
    counts, passes = Tensors(), protocol.votes_per_image * protocol.smoothing.num_samples
    for (name, stream), images in zip(STREAMS.items(), (inputs, adversarial), strict=True):
        seed = mix(key, stream)
        with progress.part(len(images) * passes, smoothed.model):
            votes, record = take_and_record_votes(
                smoothed, images, labels, protocol.votes_per_image, seed=seed, kept=kept, precision=protocol.precision
            )
        counts |= {f"{name}-{field}": values for field, values in {**votes.to_tensors(), **record}.items()}
    return counts


def _rows(
    votes: dict[str, VoteCounts],
    examples: SavedExamples,
    protocol: SavedExamplesProtocol,
    noise: dict[str, Any],
    *,
    model: str,
    same_classifier: bool,
) -> list[SavedExamplesRow]:
    """The row of single draws (each draw of a vote is a vote of M = 1) and the row of the vote."""
    common = {
        "model": model,
        "same_classifier": same_classifier,
        **noise,
        "seed": protocol.seed,
        "precision": protocol.precision,
        **{field: examples.record[field] for field in ("attack", "eps", "norm")},
        "attacked_model": examples.record["model"],
        "attacked_sigma": examples.record["sigma"],
        "data": examples.clean.name,
        "images": len(examples.clean),
    }
    smoothing, repeats = protocol.smoothing, protocol.votes_per_image
    vote = {"vote": smoothing.vote_name, "num_samples": smoothing.num_samples, "votes_per_image": repeats}
    single_draw = {"vote": "prediction", "num_samples": 1, "votes_per_image": repeats * smoothing.num_samples}
    draw_shares = {stream: counts.right_draws.double() / counts.draws for stream, counts in votes.items()}
    vote_shares = {stream: counts.shares for stream, counts in votes.items()}
    return [
        SavedExamplesRow(**common, **setting, **_accuracies(shares))
        for setting, shares in ((single_draw, draw_shares), (vote, vote_shares))
    ]


def _accuracies(shares: dict[str, Tensor]) -> dict[str, Any]:
    """Means and intervals, as fields of a row."""
    accuracies = {name: Accuracy.of_shares([values]) for name, values in shares.items()}
    means = {name: accuracy.mean for name, accuracy in accuracies.items()}
    return means | {f"{name}_interval": accuracy.interval for name, accuracy in accuracies.items()}
