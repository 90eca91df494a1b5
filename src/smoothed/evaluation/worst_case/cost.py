"""What a strong evaluation costs at most, in passes of the network: known before it starts."""

from collections.abc import Iterable, Sequence

from smoothed.evaluation.worst_case.protocol import StrongProtocol
from smoothed.evaluation.worst_case.suite import Cost, SuiteAttack, deterministic_suite, expectation_suite, sweep_attack


def total_cost(
    protocol: StrongProtocol, images: int, num_classes: int, draws: int, swept: Sequence[int] | None = None
) -> Cost:
    """All passes for `images` images, if no image breaks early.

    A vote without randomness is one pass, and not counted.

    Args:
        protocol: the settings.
        images: how many.
        num_classes: of the model, K.
        draws: what the suite takes for each gradient.
        swept: the numbers of draws that the sweep tries; all of the protocol's when None.
    """
    smoothed = suite_cost(protocol, expectation_suite(protocol, draws, num_classes), random=True)
    mean = suite_cost(protocol, deterministic_suite(protocol, num_classes), random=False)
    runs = smoothed.plus(mean).times(images * protocol.runs)
    return runs.plus(sweep_cost(protocol, images, protocol.draws if swept is None else swept))


def suite_cost(protocol: StrongProtocol, suite: Iterable[SuiteAttack], *, random: bool) -> Cost:
    """The passes of a suite and of all its votes, for an image."""
    votes = votes_cost(protocol, random=random).times(2)
    return _sum([votes, *(attack_cost(protocol, entry, random=random) for entry in suite)])


def votes_cost(protocol: StrongProtocol, *, random: bool = True) -> Cost:
    """The passes of the votes on a clean or on a final image."""
    return Cost(protocol.final_votes * protocol.num_samples if random else 0)


def attack_cost(protocol: StrongProtocol, entry: SuiteAttack, *, random: bool = True) -> Cost:
    """The passes of an attack and of the votes on its candidate, for an image."""
    return entry.cost.plus(Cost(protocol.selection_votes * protocol.num_samples if random else 0))


def sweep_cost(protocol: StrongProtocol, images: int, swept: Sequence[int]) -> Cost:
    """The passes of the sweep over the numbers of draws `swept`; with a single choice there is none."""
    tried = swept if len(protocol.draws) > 1 else ()
    each = _sum(attack_cost(protocol, sweep_attack(protocol, draws)) for draws in tried)
    return each.times(min(images, protocol.sweep_images))


def _sum(costs: Iterable[Cost]) -> Cost:
    total = Cost(0)
    for cost in costs:
        total = total.plus(cost)
    return total
