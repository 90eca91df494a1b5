"""The networks of the paper's tables and figures."""

from collections.abc import Iterable

from smoothed.errors import ArgumentError
from smoothed.paper.declaration import NetworkSpec

WIDE = "wide_resnet34_10"

# The paper trains the Wide-ResNet for 100 epochs and attacks it with 10 steps.
_WIDE_TRAINING = {"epochs": 100, "attack_steps": 10}
# CNI of the published initial strength, meant for 400 epochs, does not learn within 25: the strength and the learning
# rate of the strengths are a tenth of the published ones.
_CNI_ON_CPU = {"cpu": {"injection_strength": 0.1, "noise_lr": 0.1}}
# The radii of IAAT need more epochs to adapt.
_IAAT_ON_CPU = {"cpu": {"nfgsm_warmup": 0.4}}


def _wide(name: str, recipe: str, title: str, data: str = "cifar10") -> NetworkSpec:
    suffix = "wide" if data == "cifar10" else f"wide-{data}"
    return NetworkSpec(
        f"{name}-{suffix}", recipe, f"{title}, Wide-ResNet-34-10", data=data, architecture=WIDE, settings=_WIDE_TRAINING
    )


def _by_name(specs: Iterable[NetworkSpec]) -> dict[str, NetworkSpec]:
    networks: dict[str, NetworkSpec] = {}
    for spec in specs:
        if spec.name in networks:
            raise ArgumentError("networks", "unique names", f"two networks named {spec.name}")
        networks[spec.name] = spec
    return networks


NETWORKS: dict[str, NetworkSpec] = _by_name(
    (
        NetworkSpec("at", "at", "AT"),
        NetworkSpec("pni-w", "pni-w", "PNI-W"),
        NetworkSpec("cni-w", "cni-w", "CNI-W", overrides=_CNI_ON_CPU),
        NetworkSpec("trades-1", "trades-1", "TRADES, 1/λ = 1"),
        NetworkSpec("trades-6", "trades-6", "TRADES, 1/λ = 6"),
        NetworkSpec("mart", "mart", "MART"),
        NetworkSpec("iaat", "iaat", "IAAT", overrides=_IAAT_ON_CPU),
        NetworkSpec("csat", "csat", "CSAT"),
        NetworkSpec("cni-w-source", "cni-w", "CNI-W of another seed", settings={"seed": 1}, overrides=_CNI_ON_CPU),
        NetworkSpec("pni-w-trades", "pni-w+trades", "PNI-W+T"),
        NetworkSpec("epgd-converged", "epgd", "EPGD-converged", parent="cni-w", kind="converged", run="epgd"),
        NetworkSpec("epgd-diverged", "epgd", "EPGD-diverged", parent="cni-w", kind="diverged", run="epgd"),
        NetworkSpec("smoothadv", "smoothadv", "SmoothAdv", parent="cni-w"),
        NetworkSpec("high-k", "high-k", "CNI-W (k = 56)", parent="cni-w"),
        NetworkSpec("cni-i+w", "cni-i+w", "CNI-I+W", parent="cni-w"),
        NetworkSpec("at-cifar100", "at", "AT", data="cifar100"),
        NetworkSpec("pni-w-cifar100", "pni-w", "PNI-W", data="cifar100"),
        _wide("at", "at", "AT"),
        _wide("pni-w", "pni-w", "PNI-W"),
        _wide("iaat", "iaat", "IAAT"),
        _wide("csat", "csat", "CSAT"),
        _wide("trades-6", "trades-6", "TRADES, 1/λ = 6"),
        _wide("mart", "mart", "MART"),
        _wide("pni-w-trades", "pni-w+trades", "PNI-W+T"),
        _wide("at", "at", "AT", "cifar100"),
        _wide("pni-w", "pni-w", "PNI-W", "cifar100"),
        _wide("iaat", "iaat", "IAAT", "cifar100"),
    )
)
"""All networks by name."""

RANDOM_NETWORKS = (
    *("pni-w", "cni-w", "epgd-converged", "epgd-diverged", "smoothadv", "high-k", "cni-i+w", "pni-w-trades"),
    *("cni-w-source", "pni-w-cifar100", "pni-w-wide", "pni-w-trades-wide", "pni-w-wide-cifar100"),
)
"""Networks with noise inside, whose mean network differs from a draw."""
