"""`smoothed.evaluate`: clean and attacked accuracy of any classifier on any images."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from smoothed.api.arguments import as_tuple, check_arguments
from smoothed.api.subject import AnyClassifier, Subject, as_progress, called, options_of_call, paired_gain_of
from smoothed.attacks import Attack
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import OnProgress
from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol, PaperResult, evaluate_paper_protocol
from smoothed.evaluation.paper_protocol.rows import NETWORK_ALONE, ONE_DRAW
from smoothed.evaluation.results import PairedGain, Result
from smoothed.report.format import format_attack
from smoothed.smoothing.config import NoiseConfig
from smoothed.smoothing.input_noise import Noise
from smoothed.smoothing.votes import Vote
from smoothed.utils.devices import resolve_precision
from smoothed.utils.distributed import SINGLE_PROCESS, Processes

KEEP_IMAGES = 200
"""Number of images, from the first on, whose vote shares and adversarial versions a result keeps by default."""


def evaluate(
    classifier: AnyClassifier,
    data: Any,  # noqa: ANN401 - whatever `as_images` takes
    *,
    attack: str | Attack = "pgd",
    eps: float | None = None,
    norm: str = "linf",
    steps: int = 7,
    eot_samples: int = 8,
    max_queries: int = 1000,
    sees: str = "logits",
    sources: Mapping[str, nn.Module] | None = None,
    noises: Sequence[Noise | NoiseConfig | None] | None = None,
    votes: str | Vote | Sequence[str | Vote] | None = None,
    num_samples: int | Sequence[int] | None = None,
    base: bool = True,
    split: str = "test",
    images: int | None = None,
    keys: tuple[str, str] | None = None,
    name: str | None = None,
    runs: int = 1,
    seed: int = 0,
    precision: str = "float32",
    chunk_size: int = 250,
    keep_images: int = KEEP_IMAGES,
    out: Path | str | None = None,
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress | None = None,
    on_batch: OnProgress | None = None,
    command: str | None = None,
) -> Result:
    """Measure clean and attacked accuracy of a classifier, as the paper does.

    The attacker knows the whole network and sees one fresh draw of all noise at each gradient (an EOT attack averages
    `eot_samples` of them). The votes use draws that the attack has not seen. `worst_case` attacks harder.

    Args:
        classifier: a `Smoothed` classifier; or any callable from images (N, C, H, W) in [0, 1] to logits (N, K), which
            is evaluated by one draw; or a name or path that `load` takes, with the smoothing that its checkpoint
            stores. Nothing of it is changed.
        data: images and labels: a name, a folder, a `DataLoader`, a `Dataset`, or a pair (images, labels) of tensors or
            arrays, uint8 or float in [0, 1]. They are read batch by batch and never written to.
        attack: name of an attack (`attacks.EVALUATION_ATTACKS`), `none` for clean images only, or a function
            (model, inputs, labels, generator) -> adversarial inputs. The radius of your own attack is not checked.
        eps: radius in pixel units of [0, 1], for an L0 attack a number of pixels; None for 8/255 (L-inf) or 0.5 (L2).
        norm: norm of the radius, `linf` or `l2`; attacks with a norm of their own ignore it.
        steps: gradient steps of the attack (k).
        eot_samples: draws averaged for each gradient of an EOT attack, or for each query of a black-box attack.
        max_queries: queries per image of a black-box attack.
        sees: what a black-box attacker observes: `logits`, `shares` or `labels`.
        sources: networks that a transfer attack starts from, by name.
        noises: input noises to report one after the other, each with an attack of its own; None for the classifier's
            own.
        votes: votes to report, as names or functions from logits to scores; None for the classifier's own.
        num_samples: numbers of draws M to report, all read off the same draws; None for the classifier's own.
        base: whether a first row reports the base network: one draw without input noise, attacked by itself.
        split: `test`, `validation` or `train`, for a data set that is given by its name or folder.
        images: number of images to use, from the first on; None for all.
        keys: keys of image and label in the items of a data set of dicts.
        name: name of the model in tables; None for the name it was loaded by, else its class.
        runs: number of repetitions, each with a fresh attack and fresh draws.
        seed: seed of all random numbers.
        precision: number format of the votes: `float32`, `bf16` or `auto`; attacks use float32.
        chunk_size: rows of one forward pass of the vote.
        keep_images: number of images, from the first on, whose vote shares and adversarial images the result keeps.
        out: folder that stores finished batches, from which an interrupted evaluation continues; None stores nothing.
            The name of an attack, vote or noise of your own identifies it there.
        processes: processes that share the work; each of them gets the result.
        on_progress: called with the finished forward passes of single images and their estimated total; a pass with a
            gradient counts as three.
        on_batch: called with the finished batches of at most 250 images and their total, after each batch is stored in
            `out`. An exception of it ends the work, and the same call with `out` continues it.
        command: how this evaluation was called, for the result's provenance; None for this call.

    Returns:
        A result with one row for each vote and M, per-image outcomes in `tensors`, and the paired gain of each vote
        over one draw of the base network in `comparisons`.

    Raises:
        ArgumentError: an option is out of range, the classifier returns no logits, or its classes are not those of the
            data.
        DataError: the data set does not exist or is damaged.
        CheckpointError: the checkpoint is damaged, or `out` holds another evaluation.
        OutputError: `out` can't be written.

    Example:
        >>> import smoothed
        >>> classifier = smoothed.Smoothed(smoothed.load("resnet20-cni-w"), smoothed.Gaussian(0.06), num_samples=4)
        >>> result = smoothed.evaluate(classifier, "sample", images=8, attack="fgsm")
        >>> [(row["vote"], row["num_samples"]) for row in result.rows]
        [('none', 1), ('prediction', 4)]

    Source: the paper, section 4; PGD by Madry et al., 2018; EOT by Athalye et al., 2018.
    """
    check_arguments(locals())
    start = time.monotonic()
    given = options_of_call(evaluate, locals())
    subject = Subject.of(classifier, data, split=split, images=images, keys=keys, name=name)
    smoothing, settled_noises = subject.smoothing, subject.noises(noises)
    if not settled_noises and (votes is not None or num_samples is not None):
        argument = "num_samples" if votes is None else "votes"
        hint = "for example smoothed.Smoothed(model, smoothed.Gaussian(0.06), num_samples=64)"
        raise ArgumentError(
            argument, "a Smoothed classifier or noises beside it", f"{subject.name} without noise", hint
        )
    own_votes = ("prediction",) if smoothing is None else (smoothing.vote,)
    own_counts = ((64,) if settled_noises else (1,)) if smoothing is None else (smoothing.num_samples,)
    protocol = PaperProtocol(
        attack=attack,
        eps=eps,
        norm=norm,
        steps=steps,
        eot_samples=eot_samples,
        max_queries=max_queries,
        sees=sees,  # pyright: ignore[reportArgumentType] - checked by the attack
        votes=own_votes if votes is None else as_tuple(votes),
        num_samples=own_counts if num_samples is None else as_tuple(num_samples),
        runs=runs,
        seed=seed,
        precision=resolve_precision(precision, subject.device),
    )
    protocol.build_attack(tuple((sources or {}).values()))  # refuses wrong options before the network is called
    is_random = subject.has_random_network(seed)
    measured = evaluate_paper_protocol(
        subject.network,
        subject.images,
        protocol,
        noises=settled_noises,
        name=subject.name,
        base=base or not settled_noises,
        layer=None if smoothing is None else smoothing.layer,
        pack_draws=None if smoothing is None else smoothing.pack_draws,
        keep_images=min(keep_images, len(subject.images)),
        sources=sources,
        out=None if out is None else Path(out),
        chunk_size=chunk_size,
        processes=processes,
        on_passes=as_progress(on_progress),
        on_progress=as_progress(on_batch),
    )
    layer = None if smoothing is None else smoothing.layer
    kept = min(keep_images, len(subject.images))
    setting = {
        **protocol.setting(),
        "layer": layer,
        "runs": runs,
        "kept_images": kept,
        "random_network": is_random,
        "own_smoothing": subject.own_smoothing,
    }
    return subject.result(
        "evaluate",
        [row.to_json() for row in measured.rows],
        command=command or called(evaluate, classifier, data, **given),
        seed=seed,
        seconds=time.monotonic() - start,
        setting=setting,
        comparisons=gains_over_base(measured, is_random=is_random),
        tensors=measured.tensors(),
    )


def gains_over_base(measured: PaperResult, *, is_random: bool = True) -> list[PairedGain]:
    """The paired gain of each vote at its largest M over one draw of the base network; none without a base row.

    `is_random` is whether that network is random; if not, its row is that of the network without noise.
    """
    rows = measured.rows
    if rows[0].vote != ONE_DRAW:
        return []
    gains: list[PairedGain] = []
    base = "one draw" if is_random else f"the {NETWORK_ALONE}"
    kinds = ["clean", *([] if rows[0].robust is None else [format_attack(rows[0].attack, rows[0].steps)])]
    votes = dict.fromkeys((row.vote, row.noise, row.sigma) for row in rows[1:])
    for vote in votes:
        of_vote = [number for number, row in enumerate(rows) if number and (row.vote, row.noise, row.sigma) == vote]
        largest = max(of_vote, key=lambda number: rows[number].num_samples)
        sigma = rows[largest].sigma
        noise = "" if sigma is None else f", sigma {sigma:.4g}"
        name = f"{rows[largest].vote} vote, M = {rows[largest].num_samples}{noise}, over {base}"
        for number, kind in enumerate(kinds):
            before, after = (measured.of_row(row, "right")[number] for row in (0, largest))
            gains.append(paired_gain_of(name, kind, before, after))
    return gains
