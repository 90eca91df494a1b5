"""`smoothed.sweep`: accuracy at every sigma, vote and M, and where it peaks."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from smoothed.api.arguments import as_tuple, check_arguments
from smoothed.api.evaluate import KEEP_IMAGES
from smoothed.api.subject import AnyClassifier, Subject, as_progress, called, options_of_call
from smoothed.attacks import Attack
from smoothed.errors import ArgumentError, SmoothedError
from smoothed.evaluation.correctness import OnProgress
from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol
from smoothed.evaluation.results import Result
from smoothed.evaluation.sweep.sweep import sweep as measure_sweep
from smoothed.report.sweep import SweepReport
from smoothed.smoothing.config import NoiseConfig
from smoothed.smoothing.input_noise import NOISES, Noise
from smoothed.smoothing.votes import VOTES, Vote
from smoothed.utils.checks import check_choice, check_not_negative
from smoothed.utils.devices import resolve_precision
from smoothed.utils.distributed import SINGLE_PROCESS, Processes
from smoothed.utils.imports import error_summary
from smoothed.utils.names import name_of

NoiseFactory = Callable[[float], Noise]
"""A function from a standard deviation in pixel units to noise, such as `smoothed.Gaussian`."""


def sweep(
    classifier: AnyClassifier,
    data: Any,  # noqa: ANN401 - whatever `as_images` takes
    *,
    sigmas: float | Sequence[float] | None = None,
    sigmas_normalized: float | Sequence[float] | None = None,
    noise: str | NoiseFactory = "gaussian",
    attack: str | Attack = "pgd",
    eps: float | None = None,
    norm: str = "linf",
    steps: int = 7,
    eot_samples: int = 8,
    max_queries: int = 1000,
    sees: str = "logits",
    sources: Mapping[str, nn.Module] | None = None,
    votes: str | Vote | Sequence[str | Vote] = tuple(VOTES),
    num_samples: int | Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    split: str = "validation",
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
    """Measure accuracy at every sigma, vote and M, and test which sigmas may be the best.

    Each sigma is attacked once and drawn once, for the largest M: all M and all votes are read off the same draws. All
    sigmas use the same random numbers, scaled, so that they are compared image by image. Select sigma on images that
    are not those of the final evaluation.

    Args:
        classifier: a callable from images (N, C, H, W) in [0, 1] to logits (N, K), a `Smoothed` classifier, whose noise
            is replaced, or a name or path that `load` takes. Nothing of it is changed.
        data: images and labels, as for `evaluate`.
        sigmas: standard deviations of the input noise, in pixel units of [0, 1].
        sigmas_normalized: the same in the paper's unit, relative to the data set's deviation; needs a `normalize`
            layer. Exactly one of the two is given.
        noise: name of a distribution (`gaussian`, `uniform`, `laplace`), or a function from sigma to noise.
        attack: name of an attack, `none` for clean images only, or a function; see `evaluate`.
        eps: radius in pixel units of [0, 1], for an L0 attack a number of pixels; None for 8/255 (L-inf) or 0.5 (L2).
        norm: norm of the radius, `linf` or `l2`; attacks with a norm of their own ignore it.
        steps: gradient steps of the attack (k).
        eot_samples: draws averaged for each gradient of an EOT attack, or for each query of a black-box attack.
        max_queries: queries per image of a black-box attack.
        sees: what a black-box attacker observes: `logits`, `shares` or `labels`.
        sources: networks that a transfer attack starts from, by name.
        votes: votes, as names or functions from logits to scores.
        num_samples: numbers of draws M.
        split: `test`, `validation` or `train`, for a data set that is given by its name or folder.
        images: number of images to use, from the first on; None for all.
        keys: keys of image and label in the items of a data set of dicts.
        name: name of the model in tables; None for the name it was loaded by, else its class.
        runs: number of repetitions, each with a fresh attack and fresh draws.
        seed: seed of all random numbers.
        precision: number format of the votes: `float32`, `bf16` or `auto`; attacks use float32.
        chunk_size: rows of one forward pass of the vote.
        keep_images: number of images, from the first on, whose pixels the result keeps, before and after the attack at
            the best sigma.
        out: folder that stores finished batches, from which an interrupted sweep continues; None stores nothing.
        processes: processes that share the work; each of them gets the result.
        on_progress: called with the finished forward passes of single images and their estimated total; a pass with a
            gradient counts as three.
        on_batch: called with the finished batches of at most 250 images and their total, after each batch is stored in
            `out`. An exception of it ends the work, and the same call with `out` continues it.
        command: how this evaluation was called, for the result's provenance; None for this call.

    Returns:
        A result with one row for each vote, M and sigma, the best settings in `summary`, and whether each image was
        right in `tensors["right"]`, (kinds of images, sigmas, votes, Ms, runs, images).

    Raises:
        ArgumentError: no sigmas, repeated ones or both units, or an option out of range.
        DataError: the data set does not exist or is damaged.
        CheckpointError: the checkpoint is damaged, or `out` holds another evaluation.
        OutputError: `out` can't be written.

    Example:
        >>> import smoothed
        >>> model = smoothed.load("resnet20-cni-w")
        >>> few = {"images": 8, "num_samples": (1, 2), "split": "test"}
        >>> result = smoothed.sweep(model, "sample", sigmas=(0.0, 0.06), attack="fgsm", **few)
        >>> len(result.rows)
        12

    Source: the paper, figures 2 to 4.
    """
    check_arguments(locals())
    start = time.monotonic()
    given = options_of_call(sweep, locals())
    noises = sweep_noises(sigmas, sigmas_normalized, noise)
    subject = Subject.of(classifier, data, split=split, images=images, keys=keys, name=name)
    smoothing = subject.smoothing
    protocol = PaperProtocol(
        attack=attack,
        eps=eps,
        norm=norm,
        steps=steps,
        eot_samples=eot_samples,
        max_queries=max_queries,
        sees=sees,  # pyright: ignore[reportArgumentType] - checked by the attack
        votes=as_tuple(votes),
        num_samples=as_tuple(num_samples),
        runs=runs,
        seed=seed,
        precision=resolve_precision(precision, subject.device),
    )
    kept = min(keep_images, len(subject.images))
    found = measure_sweep(
        subject.network,
        subject.images,
        protocol,
        noises=noises,
        name=subject.name,
        layer=None if smoothing is None else smoothing.layer,
        pack_draws=None if smoothing is None else smoothing.pack_draws,
        sources=sources,
        keep_images=kept,
        out=None if out is None else Path(out),
        chunk_size=chunk_size,
        processes=processes,
        on_passes=as_progress(on_progress),
        on_progress=as_progress(on_batch),
    )
    report = SweepReport.of(found)
    values, tensors = report.to_json(), {"right": found.right}
    if found.kept_images is not None:
        tensors["images"] = found.kept_images
    if found.adversarial is not None:
        tensors["adversarial"] = found.adversarial[found.sigmas.index(values["best"]["sigma"])]
    return subject.result(
        "sweep",
        values["rows"],
        command=command or called(sweep, classifier, data, **given),
        seed=seed,
        seconds=time.monotonic() - start,
        setting={
            **found.to_setting(),
            "layer": None if smoothing is None else smoothing.layer,
            "kept_images": kept,
        },
        summary={name: values[name] for name in ("criterion", "best", "peaks")},
        tensors=tensors,
    )


def sweep_noises(
    sigmas: float | Sequence[float] | None,
    sigmas_normalized: float | Sequence[float] | None,
    noise: str | NoiseFactory,
) -> list[NoiseConfig]:
    """The noises of a sweep.

    Raises:
        ArgumentError: neither or both lists are given, an unknown distribution, or a function with normalised sigmas.
    """
    if (sigmas is None) == (sigmas_normalized is None):
        got = "neither" if sigmas is None else "both"
        raise ArgumentError("sigmas", "exactly one of sigmas and sigmas_normalized", got)
    name = "sigmas_normalized" if sigmas is None else "sigmas"
    values = [check_not_negative(sigma, name) for sigma in as_tuple(sigmas_normalized if sigmas is None else sigmas)]
    if sigmas is not None and any(sigma > 1 for sigma in values):
        hint = "it is in pixel units of [0, 1]; sigmas_normalized takes the paper's unit"
        raise ArgumentError(name, "standard deviations of at most 1", f"{max(values):g}", hint)
    if not values or len(set(values)) != len(values):
        raise ArgumentError(name, "at least one value and no repeated ones", values)
    if not isinstance(noise, str) and callable(noise):
        if sigmas is None:
            raise ArgumentError("sigmas_normalized", "the name of a distribution beside it", "a function")
        return [NoiseConfig(sigma=sigma, custom=_made_noise(noise, sigma)) for sigma in values]
    check_choice(noise, NOISES, "noise")
    if sigmas is None:
        return [NoiseConfig(sigma_normalized=sigma, law=noise) for sigma in values]
    return [NoiseConfig(sigma=sigma, law=noise) for sigma in values]


def _made_noise(factory: NoiseFactory, sigma: float) -> Noise:
    expected = "a function of a deviation that returns the noise"
    try:
        made = factory(sigma)
    except SmoothedError:
        raise
    except Exception as error:  # the user's code may raise any error
        raise ArgumentError("noise", expected, f"{name_of(factory)}, which raises {error_summary(error)}") from error
    if not callable(made):
        raise ArgumentError("noise", expected, f"one that returns an object of type {type(made).__name__}")
    return made
