"""The paper's tables. Rows without published numbers are not in the paper.

Each smoothed row of the paper has its sigma and M. Further rows have the sigma with the best robust accuracy on
held-out images, other attacks, and the networks without noise, so that the gain of the vote can be told from that of
the noise.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from smoothed.paper.declaration import Measurement, Published, RowSpec, TableSpec
from smoothed.paper.networks import NETWORKS

M = 512
"""Number of draws of the paper's best votes."""

STAND_IN = ("cpu", "tiny")
"""Schedules in which ResNet-20 stands in for the Wide-ResNet."""

OTHER_ATTACKS = {
    "PGD-7 on summed gradients": {"attack": "pgd-accumulated"},
    "EPGD-7, 8 draws": {"attack": "epgd", "eot_samples": 8},
}
"""Attacks that the paper's tables do not have: that of its published code, and the paper's own on an expectation."""


def _one_draw(network: str, published: Published | None = None, *, steps: int = 7) -> RowSpec:
    return RowSpec(f"{NETWORKS[network].title}, one draw", Measurement(network, steps=steps), published=published)


def _voted(
    network: str,
    sigma: float | Literal["tuned"],
    published: Published | None = None,
    *,
    count: int = M,
    vote: str = "prediction",
    steps: int = 7,
) -> RowSpec:
    named = f"{vote} vote" if vote != "prediction" else "vote"
    noise = f"sigma {sigma:g}" if isinstance(sigma, float) else "tuned sigma"
    measurement = Measurement(network, sigma, steps=steps)
    return RowSpec(f"{NETWORKS[network].title}, {named}, {noise}", measurement, vote, count, published)


def _mean_network(network: str) -> RowSpec:
    return RowSpec(f"{NETWORKS[network].title}, mean network", Measurement(network, mean=True))


def _under_other_attacks(row: RowSpec) -> Iterator[RowSpec]:
    for name, options in OTHER_ATTACKS.items():
        assert row.measurement is not None  # noqa: S101
        changed = replace(row.measurement, **options)
        yield replace(row, label=f"{row.label}, {name}", measurement=changed, published=None, against=(row.label,))


def _compared(row: RowSpec, *labels: str) -> RowSpec:
    return replace(row, against=labels)


def _grouped(group: str, rows: Iterable[RowSpec]) -> tuple[RowSpec, ...]:
    return tuple(replace(row, group=group) for row in rows)


_CNI, _CNI_VOTE = "CNI-W, one draw", "CNI-W, vote, sigma 0.24"
_CNI_TUNED, _AT_TUNED = "CNI-W, vote, tuned sigma", "AT, vote, tuned sigma"
_CNI_MEAN = "CNI-W, mean network"

TABLE_1 = TableSpec(
    "table-1",
    "CIFAR-10, ResNet-20, PGD-7 of radius 8/255: comparison with other defences",
    (
        *_grouped(
            "The paper's rows",
            (
                _one_draw("at", Published(83.84, 39.14, None, 0.05)),
                _one_draw("pni-w", Published(82.84, 46.11, 0.22, 0.43)),
                _one_draw("trades-1", Published(75.62, 47.18)),
                _one_draw("trades-6", Published(75.47, 47.75)),
                _one_draw("cni-w", Published(78.48, 48.84, 0.41, 0.55)),
                _compared(_voted("cni-w", 0.24, Published(81.44, 55.92, 0.06, 0.22)), _CNI),
                _compared(_voted("cni-w", 0.0, Published(84.63, 52.8, 0.05, 0.2)), _CNI),
                _compared(_voted("high-k", 0.01, Published(78.10, 60.06, 0.12, 0.29)), _CNI_VOTE),
            ),
        ),
        *_grouped(
            "Sigma chosen on held-out images",
            (
                _compared(_voted("at", "tuned"), "AT, one draw"),
                _compared(_voted("pni-w", "tuned"), "PNI-W, one draw"),
                _compared(_voted("cni-w", "tuned"), _CNI, _CNI_MEAN, _AT_TUNED),
                _compared(_voted("high-k", "tuned"), _CNI_TUNED),
            ),
        ),
        *_grouped(
            "The same vote on AT, and networks without noise",
            (
                _compared(_voted("at", 0.24), "AT, one draw"),
                _mean_network("pni-w"),
                _compared(_mean_network("cni-w"), _CNI),
                _mean_network("high-k"),
            ),
        ),
    ),
)

_ATTACKED = ("at", "trades-6", "pni-w", "cni-w", "cni-i+w", "epgd-converged", "epgd-diverged", "smoothadv", "high-k")
_SINGLE = [_one_draw(network) for network in _ATTACKED]
_SMOOTHED = [
    _compared(_voted(network, "tuned", count=64), one_draw.label)
    for network, one_draw in zip(_ATTACKED, _SINGLE, strict=True)
]

TABLE_ATTACKS = TableSpec(
    "table-attacks",
    "CIFAR-10, ResNet-20: the attack of the paper's text, that of its code, and EPGD with 8 draws (not in the paper)",
    (
        *_grouped("One draw", (row for one in _SINGLE for row in (one, *_under_other_attacks(one)))),
        *_grouped(
            "Vote at the tuned sigma", (row for voted in _SMOOTHED for row in (voted, *_under_other_attacks(voted)))
        ),
    ),
    note="The code that the authors published follows the sum of all gradients so far, the text each gradient alone.",
)

_WIDE_NOTE = "the paper does not say which of its two sigmas the number belongs to"


def _wide_rows(data: str) -> tuple[RowSpec, ...]:
    if data == "cifar100":
        return (
            _one_draw("iaat-wide-cifar100", Published(68.1, 26.17), steps=10),
            _one_draw("at-wide-cifar100", Published(65.8, 26.15), steps=10),
            _one_draw("pni-w-wide-cifar100", Published(61.72, 27.33), steps=10),
            _voted("pni-w-wide-cifar100", 0.05, Published(66.30, 29.68), count=16, steps=10),
            _voted("pni-w-wide-cifar100", "tuned", count=16, steps=10),
        )
    smoothed_rows = [
        replace(_voted(network, sigma, published, count=64, steps=10), note=_WIDE_NOTE)
        for network, published in (
            ("pni-w-wide", Published(89.27, 54.73)),
            ("pni-w-trades-wide", Published(85.71, 56.82)),
        )
        for sigma in (0.17, 0.03)
    ]
    return (
        _one_draw("at-wide", Published(89.68, 46.61), steps=10),
        _one_draw("pni-w-wide", Published(89.26, 52.9), steps=10),
        _one_draw("iaat-wide", Published(91.3, 48.53), steps=10),
        _one_draw("csat-wide", Published(87.65, 54.77), steps=10),
        _one_draw("trades-6-wide", Published(84.92, 56.5), steps=10),
        _one_draw("mart-wide", Published(83.62, 57.3), steps=10),
        *smoothed_rows,
        *(_voted(network, "tuned", count=64, steps=10) for network in ("pni-w-wide", "pni-w-trades-wide")),
    )


def _stand_in_rows(
    single: Iterable[str], smoothed: Iterable[str], sigmas: Iterable[float], count: int
) -> tuple[RowSpec, ...]:
    rows = [_one_draw(network, steps=10) for network in single]
    rows += [_voted(network, sigma, count=count, steps=10) for network in smoothed for sigma in (*sigmas, "tuned")]
    return _grouped("ResNet-20 in the Wide-ResNet's place", (replace(row, schedules=STAND_IN) for row in rows))


TABLE_2A = TableSpec(
    "table-2a",
    "CIFAR-10, Wide-ResNet-34-10, PGD-10 of radius 8/255",
    (
        *_grouped("Wide-ResNet-34-10", _wide_rows("cifar10")),
        *_stand_in_rows(
            ("at", "pni-w", "iaat", "csat", "trades-6", "mart", "pni-w-trades"),
            ("pni-w", "pni-w-trades"),
            (0.17, 0.03),
            64,
        ),
    ),
)

TABLE_2B = TableSpec(
    "table-2b",
    "CIFAR-100, Wide-ResNet-34-10, PGD-10 of radius 8/255",
    (
        *_grouped("Wide-ResNet-34-10", _wide_rows("cifar100")),
        *_stand_in_rows(("at-cifar100", "pni-w-cifar100"), ("pni-w-cifar100",), (0.05,), 16),
    ),
    same_images=False,
    note="Where the data set has a split of its own into training and test images, the numbers are of other images.",
)


def _transferred(count: int, smoothed: bool, published: Published) -> RowSpec:
    source = {"eot_samples": 8, "source_sigma": 0.02, "attack": "epgd-loss"} if smoothed else {}
    return RowSpec(
        f"M = {count}, source attacked {'with' if smoothed else 'without'} smoothing",
        Measurement("cni-w", 0.02, source="cni-w-source", **source),
        "prediction",
        count,
        published,
        against=(f"M = {count}, source attacked without smoothing",) if smoothed else (),
    )


TABLE_3A = TableSpec(
    "table-3a",
    "CIFAR-10, ResNet-20: transfer attacks on CNI-W at sigma 0.02, from a CNI-W network of another seed",
    (
        _transferred(4, False, Published(None, 58.01, None, 0.35)),
        _transferred(4, True, Published(None, 59.35, None, 0.15)),
        _transferred(8, False, Published(None, 58.49, None, 0.10)),
        _transferred(8, True, Published(None, 60.23, None, 0.14)),
    ),
    note="The paper's column Iterations is taken for M, as in Table 4. With smoothing, each gradient is the mean over "
    "8 draws of the source under input noise of the same sigma; without, it is of one draw of the source.",
)


def _queried(network: str, count: int, published: float | None) -> RowSpec:
    measurement = Measurement(network, 0.24, attack="nattack", eot_samples=count)
    label = f"{NETWORKS[network].title}, vote, M = {count}"
    numbers = None if published is None else Published(None, published)
    return RowSpec(label, measurement, "prediction", count, numbers)


def _queried_once(network: str, published: float) -> RowSpec:
    return RowSpec(
        NETWORKS[network].title, Measurement(network, attack="nattack"), published=Published(None, published)
    )


_NATTACK = (
    _queried_once("at", 33.11),
    _queried("pni-w", 1, 47.17),
    _queried("pni-w", 4, 50.29),
    _queried("pni-w", 8, 50.78),
    _queried("cni-w", 1, 48.83),
    _queried("cni-w", 4, 50.98),
    _queried("cni-w", 8, 51.56),
)
_PGD_BESIDE = tuple(
    replace(_voted(network, 0.24, count=8), label=f"{NETWORKS[network].title}, vote, M = 8, PGD-7")
    for network in ("pni-w", "cni-w")
)
_NATTACK_NOTE = (
    "Each query is answered by the mean of the logits over M draws. The paper does not give the number of queries."
)

TABLE_3B = TableSpec(
    "table-3b",
    "CIFAR-10, ResNet-20: NAttack on PNI-W and CNI-W at sigma 0.24",
    (*_NATTACK, *_grouped("PGD, for comparison", _PGD_BESIDE)),
    note=_NATTACK_NOTE,
)

_DIVERGED, _K56 = "epgd-diverged", "high-k"
_TUNED_MODELS = ("cni-w", "epgd-diverged", "epgd-converged", "cni-i+w", "smoothadv", "high-k")

TABLE_4 = TableSpec(
    "table-4",
    "CIFAR-10, ResNet-20, PGD-7 of radius 8/255: smoothed networks",
    (
        *_grouped(
            "The paper's rows",
            (
                _voted("cni-w", 0.0, Published(84.63, 52.8, 0.05, 0.29)),
                _compared(_voted("cni-w", 0.24, Published(81.44, 55.92, 0.06, 0.22)), "CNI-W, vote, sigma 0"),
                _voted(_DIVERGED, 0.0, Published(83.05, 57.31, 0.01, 0.22), count=256),
                _compared(_voted(_DIVERGED, 0.18, Published(81.07, 58.56, 0.01, 0.14), count=256), _CNI_VOTE),
                _voted(_DIVERGED, 0.0, Published(83.13, 57.07, 0.07, 0.15), vote="soft"),
                _voted(_DIVERGED, 0.19, Published(80.98, 58.32, 0.07, 0.33), vote="soft"),
                _voted(_DIVERGED, 0.19, Published(80.98, 58.47, 0.07, 0.18), vote="weighted", count=256),
                _compared(_voted("epgd-converged", 0.22, Published(81.82, 55.9, 0.05, 0.37), count=256), _CNI_VOTE),
                _compared(_voted("cni-i+w", 0.37, Published(81.25, 55.23, 0.06, 0.37), count=256), _CNI_VOTE),
                _compared(_voted(_K56, 0.11, Published(77.28, 60.54, 0.05, 0.26)), _CNI_VOTE),
            ),
        ),
        *_grouped(
            "Sigma chosen on held-out images",
            (
                row if row.measurement is None or row.measurement.network == "cni-w" else _compared(row, _CNI_TUNED)
                for row in (_voted(network, "tuned") for network in _TUNED_MODELS)
            ),
        ),
        *_grouped("Networks without noise", (_mean_network(network) for network in _TUNED_MODELS)),
    ),
)

TABLE_B1 = TableSpec(
    "table-b1",
    "CIFAR-10: NAttack on PNI-W and CNI-W at sigma 0.24",
    (
        *_grouped(
            "(a) ResNet-20",
            (row if row.label == "AT" else replace(row, published=None) for row in _NATTACK),
        ),
        *_grouped(
            "(b) Wide-ResNet-34-10",
            (
                _queried_once("at-wide", 43.75),
                _queried("pni-w-wide", 1, 56.25),
                _queried("pni-w-wide", 4, 55.06),
                _queried("pni-w-wide", 8, None),
                _queried_once("mart-wide", 47.02),
            ),
        ),
    ),
    note=f"{_NATTACK_NOTE} Part (a) repeats Table 3b; its numbers are illegible in the copy at hand, but for AT.",
)

TABLES = (TABLE_1, TABLE_2A, TABLE_2B, TABLE_3A, TABLE_3B, TABLE_4, TABLE_B1, TABLE_ATTACKS)
