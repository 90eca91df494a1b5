"""`smoothed.certify`: certified accuracy within L2 radii (Cohen, Rosenfeld and Kolter, ICML 2019)."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smoothed.api.arguments import as_tuple, check_arguments
from smoothed.api.evaluate import KEEP_IMAGES
from smoothed.api.subject import AnyClassifier, Subject, as_progress, called, options_of_call
from smoothed.evaluation.certified import RADII, CertificationProtocol, evaluate_certified
from smoothed.evaluation.correctness import OnProgress
from smoothed.evaluation.results import Result
from smoothed.smoothing.config import NoiseConfig
from smoothed.smoothing.input_noise import Noise
from smoothed.utils.devices import resolve_precision
from smoothed.utils.distributed import SINGLE_PROCESS, Processes


def certify(
    classifier: AnyClassifier,
    data: Any,  # noqa: ANN401 - whatever `as_images` takes
    *,
    radii: Sequence[float] = RADII,
    alpha: float = 0.001,
    selection_samples: int = 100,
    num_samples: int = 1000,
    noises: Sequence[Noise | NoiseConfig] | None = None,
    split: str = "test",
    images: int | None = None,
    keys: tuple[str, str] | None = None,
    name: str | None = None,
    seed: int = 0,
    precision: str = "float32",
    chunk_size: int = 250,
    keep_images: int = KEEP_IMAGES,
    out: Path | str | None = None,
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress | None = None,
    command: str | None = None,
) -> Result:
    """Certify the class of each image within an L2 radius, or abstain, and measure certified accuracy.

    Noise inside the network is drawn anew for each draw: the certificate is that of the vote over both noises.
    `certify_inputs` certifies one batch of images without labels.

    Args:
        classifier: a `Smoothed` classifier with Gaussian noise on the image; or a name or path that `load` takes, with
            the smoothing that its checkpoint stores. Its vote and M are not used. Nothing of it is changed.
        data: images and labels, as for `evaluate`.
        radii: L2 radii at which to report certified accuracy, in pixel units of [0, 1].
        alpha: bound of the error probability of each image's certificate, in [1e-12, 0.5).
        selection_samples: draws per image that choose the class (n0).
        num_samples: draws per image that bound the probability of that class (n).
        noises: Gaussian noises on the image to certify one after the other; None for the classifier's own.
        split: `test`, `validation` or `train`, for a data set that is given by its name or folder.
        images: number of images to use, from the first on; None for all.
        keys: keys of image and label in the items of a data set of dicts.
        name: name of the model in tables; None for the name it was loaded by, else its class.
        seed: seed of all random numbers.
        precision: number format of the votes: `float32`, `bf16` or `auto`.
        chunk_size: rows of one forward pass of the vote.
        keep_images: number of images, from the first on, whose pixels the result keeps.
        out: folder that stores finished batches, from which an interrupted certification continues; None for none.
        processes: processes that share the work; each of them gets the result.
        on_progress: called with the finished amount of work and its total.
        command: how this evaluation was called, for the result's provenance; None for this call.

    Returns:
        A result with one row for each radius, and the class and radius of each image in `tensors`.

    Raises:
        ArgumentError: the noise cannot be certified, or an option is out of range.
        DataError: the data set does not exist or is damaged.
        CheckpointError: the checkpoint is damaged, or `out` holds another evaluation.
        OutputError: `out` can't be written.

    Warns:
        TooFewSamplesWarning: too few draws to certify any image.

    Example:
        >>> import smoothed
        >>> classifier = smoothed.Smoothed(smoothed.load("resnet20-cni-w"), smoothed.Gaussian(0.12))
        >>> result = smoothed.certify(classifier, "sample", images=4, radii=(0.1,), num_samples=20)
        >>> result.tensors["radius"].shape
        torch.Size([1, 4])
    """
    check_arguments(locals())
    start = time.monotonic()
    given = options_of_call(certify, locals())
    subject = Subject.of(classifier, data, split=split, images=images, keys=keys, name=name)
    if noises is None:
        subject.required_smoothing("certify")
    smoothing, settled_noises = subject.smoothing, subject.noises(noises)
    protocol = CertificationProtocol(
        radii=as_tuple(radii),
        alpha=alpha,
        selection_samples=selection_samples,
        num_samples=num_samples,
        seed=seed,
        precision=resolve_precision(precision, subject.device),
    )
    found = evaluate_certified(
        subject.network,
        subject.images,
        protocol,
        noises=settled_noises,
        layer=None if smoothing is None else smoothing.layer,
        pack_draws=None if smoothing is None else smoothing.pack_draws,
        name=subject.name,
        out=None if out is None else Path(out),
        chunk_size=chunk_size,
        processes=processes,
        on_progress=as_progress(on_progress),
    )
    kept, tensors = min(keep_images, len(subject.images)), found.tensors
    if kept:
        tensors = {**tensors, "images": next(iter(subject.images.first(kept).batches(kept)))[0].cpu()}
    setting = {**protocol.draw_settings(), "radii": list(protocol.radii), "alpha": alpha, "kept_images": kept}
    return subject.result(
        "certify",
        [row.to_json() for row in found.rows],
        command=command or called(certify, classifier, data, **given),
        seed=seed,
        seconds=time.monotonic() - start,
        setting={**setting, "noises": [noise.to_json(subject.network) for noise in settled_noises]},
        tensors=tensors,
    )
