"""Certified accuracy of the classifier of a worst-case evaluation, on the same images.

Attacks bound the accuracy within their ball from above, certificates from below. The L-inf ball of radius eps lies
inside the L2 ball of radius eps * sqrt(d): an image certified at that radius withstands every attack of the protocol.
The L2 ball of radius eps lies inside the L-inf ball, so certified accuracy at eps may exceed accuracy under attack.
"""

import math
from pathlib import Path

from torch import nn

from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.certified import CertificationProtocol, CertifiedResult, evaluate_certified
from smoothed.evaluation.correctness import OnProgress, ignore_progress
from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
from smoothed.smoothing.certification import certifiable_sigma
from smoothed.utils.distributed import SINGLE_PROCESS, Processes

# An L2 radius that is reported for every eps, for comparison with papers on certification.
COMMON_RADIUS = 0.1

FOLDER = "certified"


def certification_protocol(
    model: nn.Module,
    data: Images,
    protocol: WorstCaseProtocol,
    *,
    selection_samples: int = 100,
    num_samples: int = 1000,
) -> CertificationProtocol:
    """Settings that certify the classifier of a worst-case evaluation; raises if it can't be certified.

    Args:
        model: network from images in [0, 1] to logits (N, K), on the device of the data.
        data: images to evaluate.
        protocol: settings of the attacks; the certificate uses their alpha, if there is one.
        selection_samples: draws per image that choose the class (n0).
        num_samples: draws per image that bound the probability of that class (n). The certificate holds for the vote of
            infinitely many draws, not for the vote of the protocol's M.

    Returns:
        Settings with the L2 radii 0, eps, 0.1 and eps * sqrt(d), ascending and without repeated ones, in pixel units of
        [0, 1].

    Raises:
        ArgumentError: another vote than the prediction vote, or input noise that is not Gaussian or has deviation 0.
    """
    if protocol.smoothing.vote != "prediction":
        raise ArgumentError(
            "vote", "prediction, the only vote that can be certified", f"the {protocol.smoothing.vote_name} vote"
        )
    certifiable_sigma(protocol.smoothing.smooth(model))
    pixels, _ = next(iter(data.batches(1)))
    covering_radius = protocol.eps * math.sqrt(pixels[0].numel())
    settings = {} if protocol.alpha is None else {"alpha": protocol.alpha}
    return CertificationProtocol(
        radii=tuple(sorted({0.0, protocol.eps, COMMON_RADIUS, covering_radius})),
        selection_samples=selection_samples,
        num_samples=num_samples,
        seed=protocol.seed,
        precision=protocol.precision,
        **settings,
    )


def certify_worst_case(
    model: nn.Module,
    data: Images,
    protocol: WorstCaseProtocol,
    certification: CertificationProtocol,
    *,
    name: str,
    out: Path | None = None,
    chunk_size: int = 250,
    processes: Processes = SINGLE_PROCESS,
    on_progress: OnProgress = ignore_progress,
) -> CertifiedResult:
    """Certify the classifier of a worst-case evaluation.

    Args:
        model: attacked network, from images in [0, 1] to logits (N, K), on the device of the data.
        data: images of the worst-case evaluation.
        protocol: settings of the worst-case evaluation.
        certification: settings from `certification_protocol`.
        name: name of the model in the rows.
        out: folder of the worst-case evaluation; counts are stored in its subfolder `certified`. None stores nothing.
        chunk_size: rows of one forward pass.
        processes: processes that share the batches; each of them gets all rows.
        on_progress: called with the finished draws of this process and their total, as in `evaluate_certified`.

    Returns:
        One row for each radius, and the certificate of each image.

    Raises:
        ArgumentError: the noise can't be certified, such as a sigma of 0.
        CheckpointError: `out` holds the counts of another configuration.
        OutputError: `out` can't be written.
        ProcessError: another process has ended.
    """
    return evaluate_certified(
        model,
        data,
        certification,
        noises=[protocol.smoothing.noise],
        name=name,
        pack_draws=protocol.smoothing.pack_draws,
        out=None if out is None else out / FOLDER,
        chunk_size=chunk_size,
        processes=processes,
        on_progress=on_progress,
    )
