"""Certified accuracy beside what the strong protocol's attacks left: of the same vote, on the same images.

An attack bounds the accuracy in its ball from above, a certificate from below. The L-inf ball of eps lies in the L2
ball of eps * sqrt(d), whose surface its corners touch: what is certified there withstands every attack of the
protocol. The L2 ball of radius eps lies in the L-inf ball, so that more may be certified there than attacks leave.
"""

import math
from pathlib import Path

from torch import nn

from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.evaluation.certified import CertificationProtocol, CertifiedRow, evaluate_certified
from smoothed.evaluation.correctness import OnProgress, ignore_progress
from smoothed.evaluation.paper_protocol.evaluate import Protocol
from smoothed.evaluation.worst_case.protocol import StrongProtocol
from smoothed.smoothing.certification import certifiable_sigma
from smoothed.smoothing.classifier import Smoothed
from smoothed.utils.distributed import ALONE, Processes

# A radius that papers on certificates report, whatever eps is.
COMMON_RADIUS = 0.1

FOLDER = "certified"


def certification_of(
    model: nn.Module, data: Images, protocol: StrongProtocol, *, selection_samples: int = 100, num_samples: int = 1000
) -> CertificationProtocol:
    """How to certify the classifier that `protocol` attacks; refuses before any work what can't be certified.

    Args:
        model: from images to logits (N, K), on the data's device.
        data: the images to measure on.
        protocol: of the attacks. Its alpha is the certificate's, if it has one.
        selection_samples: draws that choose a class, n0.
        num_samples: draws that bound its probability, n. The certificate is of the vote of infinitely many draws, and
            not of the protocol's M.

    Returns:
        Settings with the L2 radii 0, eps, 0.1 and eps * sqrt(d), ascending and each once, in pixel units of [0, 1].

    Raises:
        ArgumentError: another vote than the prediction vote, or input noise that is not Gaussian or of deviation 0.
    """
    if protocol.vote != "prediction":
        raise ArgumentError("vote", "the prediction vote, which alone is certified", f"the {protocol.vote} vote")
    noise = Protocol(noise=protocol.noise, sigma_units=protocol.sigma_units).input_noise(model, protocol.sigma)
    certifiable_sigma(Smoothed(model, noise))
    pixels, _ = next(iter(data.batches(1)))
    covering = protocol.eps * math.sqrt(pixels[0].numel())
    settings = {} if protocol.alpha is None else {"alpha": protocol.alpha}
    return CertificationProtocol(
        radii=tuple(sorted({0.0, protocol.eps, COMMON_RADIUS, covering})),
        selection_samples=selection_samples,
        num_samples=num_samples,
        sigma_units=protocol.sigma_units,
        seed=protocol.seed,
        precision=protocol.precision,
        **settings,
    )


def certify_strong(
    model: nn.Module,
    data: Images,
    protocol: StrongProtocol,
    certification: CertificationProtocol,
    *,
    name: str,
    out: Path | None = None,
    chunk_size: int = 250,
    processes: Processes = ALONE,
    on_progress: OnProgress = ignore_progress,
) -> list[CertifiedRow]:
    """A row of certified accuracy for each radius.

    Args:
        model: as attacked.
        data: likewise.
        protocol: likewise.
        certification: of `certification_of`.
        name: of the model, for the rows.
        out: the folder of the attacks' steps, in which the counts have one of their own; None keeps nothing.
        chunk_size: rows of one forward pass.
        processes: those that share the batches. All of them get the rows.
        on_progress: as in `evaluate_certified`.

    Raises:
        ArgumentError: as `evaluate_certified`, as are the others.
        CheckpointError: `out` holds another configuration's counts.
        OutputError: `out` can't be written.
        ProcessError: another process is gone.
    """
    return evaluate_certified(
        model,
        data,
        certification,
        sigmas=[protocol.sigma],
        name=name,
        out=None if out is None else out / FOLDER,
        chunk_size=chunk_size,
        processes=processes,
        on_progress=on_progress,
    )
