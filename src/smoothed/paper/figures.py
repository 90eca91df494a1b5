"""The paper's figures."""

from smoothed.paper.declaration import CurveSpec, FigureSpec, Measurement, PanelSpec, Published, SigmaSweep
from smoothed.paper.networks import NETWORKS

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""The Ms of the paper's sweeps."""
VOTES = ("prediction", "weighted", "soft")
BASE_MODELS = ("cni-w", "epgd-converged", "epgd-diverged", "smoothadv", "high-k", "cni-i+w")
VOTE_COUNT = 8
"""M at which the votes are compared (Figure B.1)."""
BACKWARD_DRAWS = 8
"""Draws of one gradient of EPGD and SmoothAdv."""
STEPS = (1, 2, 4, 8, 16, 32, 64)
RADII = (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0)
"""Radii of Figure B.4, in units of 1/255."""

# Points of Table 4 that lie on the figures' curves, by network and M.
_PRINTED = {
    ("cni-w", 512): {0.0: Published(84.63, 52.8, 0.05, 0.29), 0.24: Published(81.44, 55.92, 0.06, 0.22)},
    ("epgd-diverged", 256): {0.0: Published(83.05, 57.31, 0.01, 0.22), 0.18: Published(81.07, 58.56, 0.01, 0.14)},
    ("cni-i+w", 256): {0.37: Published(81.25, 55.23, 0.06, 0.37)},
    ("high-k", 512): {0.11: Published(77.28, 60.54, 0.05, 0.26)},
}


def sweep_of_votes(network: str) -> SigmaSweep:
    """The sweep that compares the votes of a network, at one M."""
    return SigmaSweep(network, votes=VOTES, num_samples=VOTE_COUNT)


def _by_count(network: str) -> tuple[CurveSpec, ...]:
    sweep = (SigmaSweep(network),)
    return tuple(
        CurveSpec(f"M = {count}", sweep, "prediction", count, _PRINTED.get((network, count), {})) for count in COUNTS
    )


def _clean_and_robust(curves: tuple[CurveSpec, ...]) -> tuple[PanelSpec, ...]:
    return PanelSpec("clean images", "clean", curves), PanelSpec("PGD-7", "robust", curves)


FIGURE_1 = FigureSpec(
    "figure-1",
    "CNI-W, prediction vote: accuracy against sigma for several M",
    _clean_and_robust(_by_count("cni-w")),
    note="The paper calls this network CPNI, the name in its published code.",
)
FIGURE_2 = FigureSpec(
    "figure-2",
    "Prediction vote under PGD-7: accuracy against sigma for several M",
    tuple(PanelSpec(NETWORKS[n].title, "robust", _by_count(n)) for n in ("cni-i+w", "epgd-diverged")),
)
FIGURE_B1 = FigureSpec(
    "figure-b1",
    "M = 8, all networks and votes: accuracy against sigma",
    _clean_and_robust(
        tuple(
            CurveSpec(f"{NETWORKS[network].title}, {vote}", (sweep_of_votes(network),), vote, VOTE_COUNT)
            for network in BASE_MODELS
            for vote in VOTES
        )
    ),
)
FIGURE_B2 = FigureSpec(
    "figure-b2",
    "CNI-W (k = 56), prediction vote: accuracy against sigma for several M",
    _clean_and_robust(_by_count("high-k")),
)


def _attacked(attack: str, eot_samples: int) -> tuple[Measurement, ...]:
    most = STEPS if eot_samples == 1 else STEPS[:-2]
    return tuple(Measurement("cni-w", 0.24, attack=attack, steps=k, eot_samples=eot_samples) for k in most)


_ATTACKS = {
    "PGD": _attacked("pgd", 1),
    "EPGD": _attacked("epgd", BACKWARD_DRAWS),
    "SmoothAdv": _attacked("smoothadv", BACKWARD_DRAWS),
    "PGD on summed gradients": _attacked("pgd-accumulated", 1),
}

FIGURE_B3 = FigureSpec(
    "figure-b3",
    "CNI-W at sigma 0.24: accuracy against the number of gradients of the attack",
    tuple(
        PanelSpec(
            f"M = {count}",
            "robust",
            tuple(CurveSpec(name, sources, "prediction", count) for name, sources in _ATTACKS.items()),
        )
        for count in (1, 8, 512)
    ),
    x="budget",
    note="EPGD and SmoothAdv take the gradient of 8 draws at each step. The paper has no curve of summed gradients.",
)
FIGURE_B4 = FigureSpec(
    "figure-b4",
    "Prediction vote of M = 8 under PGD-7: accuracy against the radius of the attack",
    (
        PanelSpec(
            "PGD-7",
            "robust",
            tuple(
                CurveSpec(
                    f"{NETWORKS[network].title}, sigma {sigma:g}",
                    tuple(Measurement(network, sigma, radius=radius) for radius in RADII),
                    "prediction",
                    8,
                    starts_clean=True,
                )
                for network, sigma in (("cni-w", 0.24), ("high-k", 0.11))
            ),
        ),
    ),
    x="radius",
    note="The paper's caption says CNI-W and its text the best network, so that both are drawn.",
)

FIGURES = (FIGURE_1, FIGURE_2, FIGURE_B1, FIGURE_B2, FIGURE_B3, FIGURE_B4)
