"""The claims of the paper on its experiments, as differences that lie in a region if the claim is true.

The region is above 0 for 'higher', within 1 point of 0 for 'equal', below 1 point for 'no higher', and above -1 point
for 'no lower'. `verdicts.py` judges the claims.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from smoothed.paper.declaration import TUNED, Measurement, RowSpec, SigmaSweep
from smoothed.paper.estimates import ClaimPart, best_sigmas, better_vote, difference, growth, same_sigma
from smoothed.paper.figures import BACKWARD_DRAWS, BASE_MODELS, VOTES, sweep_of_votes
from smoothed.paper.networks import NETWORKS
from smoothed.paper.tables import M

MARGIN = 1.0
"""Difference, in points, up to which two accuracies count as equal."""

Region = tuple[float, float]
HIGHER: Region = (0.0, math.inf)
NOT_HIGHER: Region = (-math.inf, MARGIN)
NOT_LOWER: Region = (-MARGIN, math.inf)
EQUAL: Region = (-MARGIN, MARGIN)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        name: short name.
        sentence: the claim.
        where: where the paper makes it.
        difference: the difference that its parts estimate.
        region: where the difference lies if the claim is true, in the unit of the estimates.
        names: tables and figures that need the same results.
        parts: its parts.
    """

    name: str
    sentence: str
    where: str
    difference: str
    region: Region
    names: tuple[str, ...]
    parts: tuple[ClaimPart, ...]


def _vote(network: str, count: int = M, sigma: Any = TUNED, **attack: Any) -> RowSpec:  # noqa: ANN401
    return RowSpec("", Measurement(network, sigma, **attack), "prediction", count)


def _one_draw(network: str) -> RowSpec:
    return RowSpec("", Measurement(network))


def _title(network: str) -> str:
    return NETWORKS[network].title


def _against(after: str, networks: Iterable[str]) -> tuple[ClaimPart, ...]:
    return tuple(difference(f"against {_title(other)}", _vote(after), _vote(other)) for other in networks)


_VOTED = "difference of the attacked accuracies of the votes of 512 draws, each at the sigma chosen on held-out images"
_KINDS = {"clean": "clean", "robust": "attacked"}
_ATTACKED_COUNTS = (1, 8, M)
"""The Ms of Figure B.3."""
_GRADIENTS = {"sigma": 0.24, "eot_samples": BACKWARD_DRAWS}

CLAIMS = (
    Claim(
        "grows",
        "The more draws a vote has, the more accurate it is, on clean and on attacked images.",
        "Section 1 (contributions); Figures 1, 2 and B.2; here from the votes of Table 4",
        "accuracy per doubling of M (slope over log2 M), at the sigma chosen on held-out images",
        HIGHER,
        ("table-4",),
        tuple(
            growth(f"{_title(network)}, {images}", Measurement(network, TUNED), "prediction", kind)
            for network in ("cni-w", "cni-i+w", "epgd-diverged", "high-k")
            for kind, images in _KINDS.items()
        ),
    ),
    Claim(
        "few-draws",
        "A vote of few draws is already more accurate than one draw, on clean and on attacked images.",
        "Section 1 (contributions)",
        "accuracy of CNI-W: vote of 8 draws at the sigma chosen on held-out images, minus one draw",
        HIGHER,
        ("table-1",),
        tuple(difference(images, _vote("cni-w", 8), _one_draw("cni-w"), kind) for kind, images in _KINDS.items()),
    ),
    Claim(
        "any-defence",
        "Smoothing makes every kind of defence more robust: AT, PNI-W and CNI-W alike.",
        "Section 1 (contributions); Table 1",
        "attacked accuracy: vote of 512 draws at the sigma chosen on held-out images, minus one draw",
        HIGHER,
        ("table-1",),
        tuple(difference(_title(network), _vote(network), _one_draw(network)) for network in ("at", "pni-w", "cni-w")),
    ),
    Claim(
        "one-sigma",
        "Each network has one best sigma, which is the same for every vote.",
        "Appendix B; Figure B.1",
        "attacked accuracy of a vote of 8 draws at its own best sigma, minus that at the prediction vote's best sigma",
        NOT_HIGHER,
        ("figure-b1",),
        tuple(
            same_sigma(f"{_title(network)}, {vote}", sweep_of_votes(network), vote)
            for network in BASE_MODELS
            for vote in VOTES[1:]
        ),
    ),
    Claim(
        "prediction-vote",
        "The prediction vote is more robust than the weighted and the soft vote.",
        "Section 5.2; Figure B.1",
        "attacked accuracy of the prediction vote of 8 draws, minus that of another vote, each at its best sigma",
        HIGHER,
        ("figure-b1",),
        tuple(
            better_vote(f"{_title(network)}, {vote}", sweep_of_votes(network), vote)
            for network in BASE_MODELS
            for vote in VOTES[1:]
        ),
    ),
    Claim(
        "epgd-diverged",
        "Under the vote, EPGD-diverged is more robust than CNI-W, from which it is fine-tuned.",
        "Section 6; Table 4",
        _VOTED,
        HIGHER,
        ("table-4",),
        _against("epgd-diverged", ["cni-w"]),
    ),
    Claim(
        "epgd-converged",
        "Under the vote, EPGD-converged is as robust as CNI-W, from which it is fine-tuned.",
        "Section 5 (settings); Table 4",
        _VOTED,
        EQUAL,
        ("table-4",),
        _against("epgd-converged", ["cni-w"]),
    ),
    Claim(
        "high-k",
        "Under the vote, CNI-W fine-tuned with 56 attack steps is the most robust ResNet-20 of all.",
        "Section 5 (settings) and 5.1; Tables 1 and 4",
        f"{_VOTED}; TRADES without vote",
        HIGHER,
        ("table-1", "table-4"),
        (
            *_against("high-k", ("cni-w", "epgd-diverged", "epgd-converged", "cni-i+w", "smoothadv", "at", "pni-w")),
            *(
                difference(f"against {_title(other)}", _vote("high-k"), _one_draw(other))
                for other in ("trades-1", "trades-6")
            ),
        ),
    ),
    Claim(
        "more-noise",
        "CNI-I+W, which is trained with input noise, bears more of it than CNI-W: its best sigma is larger.",
        "Section 5.2; Figures 1 and 2, Table 4",
        "best sigma under attack, in the paper's unit, for the prediction vote of most draws: CNI-I+W minus CNI-W",
        HIGHER,
        ("figure-1", "figure-2"),
        (best_sigmas("CNI-I+W against CNI-W", SigmaSweep("cni-i+w"), SigmaSweep("cni-w")),),
    ),
    Claim(
        "epgd-attack",
        "EPGD with 8 draws per step is as strong an attack as PGD with 8 times its steps and thus as many gradients.",
        "Appendix B; Figure B.3",
        "accuracy of CNI-W at sigma 0.24 under EPGD of 8 steps, minus that under PGD of 64 steps",
        EQUAL,
        ("figure-b3",),
        tuple(
            difference(
                f"M = {count}",
                _vote("cni-w", count, attack="epgd", steps=8, **_GRADIENTS),
                _vote("cni-w", count, 0.24, attack="pgd", steps=8 * BACKWARD_DRAWS),
            )
            for count in _ATTACKED_COUNTS
        ),
    ),
    Claim(
        "smoothadv-attack",
        "SmoothAdv is a weaker attack than EPGD for every number of steps.",
        "Appendix B; Figure B.3",
        "accuracy of CNI-W at sigma 0.24 under SmoothAdv, minus that under EPGD of as many steps and draws",
        HIGHER,
        ("figure-b3",),
        tuple(
            difference(
                f"M = {count}, k = {steps}",
                _vote("cni-w", count, attack="smoothadv", steps=steps, **_GRADIENTS),
                _vote("cni-w", count, attack="epgd", steps=steps, **_GRADIENTS),
            )
            for count in _ATTACKED_COUNTS
            for steps in (1, 2, 4, 8, 16)
        ),
    ),
    Claim(
        "transfer",
        "Transferred examples are no stronger if their source network is attacked with smoothing.",
        "Section 5.1; Table 3a",
        "accuracy of CNI-W at sigma 0.02 under the attack on the smoothed source, minus that on the plain source",
        NOT_LOWER,
        ("table-3a",),
        tuple(
            difference(
                f"M = {count}",
                _vote(
                    *("cni-w", count, 0.02),
                    source="cni-w-source",
                    attack="epgd-loss",
                    eot_samples=8,
                    source_sigma=0.02,
                ),
                _vote("cni-w", count, 0.02, source="cni-w-source"),
            )
            for count in (4, 8)
        ),
    ),
    Claim(
        "nattack-defence",
        "Under the black-box NAttack, voted PNI-W and CNI-W are more robust than AT.",
        "Section 5.1; Table 3b",
        "accuracy under NAttack: vote of 8 draws at sigma 0.24, minus AT",
        HIGHER,
        ("table-3b",),
        tuple(
            difference(
                _title(network),
                _vote(network, 8, 0.24, attack="nattack", eot_samples=8),
                RowSpec("", Measurement("at", attack="nattack")),
            )
            for network in ("pni-w", "cni-w")
        ),
    ),
    Claim(
        "nattack",
        "The black-box NAttack is no stronger than PGD; if it were, that would be a sign of obfuscated gradients.",
        "Not stated; a check of Section 5.1, which argues against obfuscated gradients, on Table 3b",
        "accuracy of the vote of 8 draws at sigma 0.24 under NAttack, minus that under PGD",
        NOT_LOWER,
        ("table-3b",),
        tuple(
            difference(
                _title(network),
                _vote(network, 8, 0.24, attack="nattack", eot_samples=8),
                _vote(network, 8, 0.24),
            )
            for network in ("pni-w", "cni-w")
        ),
    ),
)
"""The paper's claims on its experiments."""
