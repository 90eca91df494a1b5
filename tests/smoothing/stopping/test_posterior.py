"""The chance of being overtaken, against the beta-binomial distribution and against urns."""

import numpy as np
import pytest
import torch
from scipy.stats import betabinom

from smoothed.smoothing.stopping.posterior import _STEP, MAX_EXACT_DRAWS, chance_table


def table_chance(table, delta, drawn, ahead, behind):
    """The smallest level that these counts reach; None above delta."""
    leads = table.leads[min(drawn, len(table.leads) - 1)]
    reached = int((ahead - behind >= leads[behind]).sum())
    return None if not reached else delta / _STEP ** (reached - 1)


@pytest.mark.parametrize("alpha", [0.5, 0.05])
def test_two_classes_are_beta_binomial(alpha):
    """After x and y of M draws, the rest for the rival is beta-binomial; a tie counts as overtaken."""
    total, delta = 60, 0.05
    table = chance_table(total, 2, delta, alpha)
    for drawn in (1, 2, 7, 30, 55, 59):
        for behind in range(drawn // 2 + 1):
            ahead, left = drawn - behind, total - drawn
            chance = 1 - betabinom(left, behind + alpha, ahead + alpha).cdf(np.ceil(total / 2) - behind - 1)
            level = table_chance(table, delta, drawn, ahead, behind)
            if level is None:
                assert chance > delta * (1 - 1e-3)
            else:
                assert chance <= level * (1 + 1e-3) or chance < 1e-6
                smallest = delta / _STEP ** (table.leads.shape[2] - 1)
                assert chance > level / _STEP * (1 - 1e-3) or level == pytest.approx(smallest)


def test_several_classes_are_an_urn():
    """Drawn from an urn that gets another ball of the colour drawn, 40,000 times."""
    total, classes, alpha, delta = 50, 6, 0.2, 0.2
    random = np.random.default_rng(0)
    counts = np.array([8, 3, 1, 0, 0, 0])
    table = chance_table(total, classes, delta, alpha)
    ends = random.dirichlet(counts + alpha, 40_000)
    ends = counts + random.multinomial(total - counts.sum(), ends)
    for rival in (1, 2, 3):
        chance = (ends[:, rival] >= ends[:, 0]).mean()
        level = table_chance(table, delta, 12, 8, counts[rival])
        smallest = delta / _STEP ** (table.leads.shape[2] - 1)
        assert chance <= level * 1.07
        assert chance >= level / _STEP * 0.93 or level == pytest.approx(smallest)


def test_the_bound_for_many_draws_is_above_the_chance_and_near_it():
    delta, alpha = 0.01, 0.5
    bound = chance_table(MAX_EXACT_DRAWS + 1, 2, delta, alpha)
    exact = chance_table(MAX_EXACT_DRAWS, 2, delta, alpha)
    compared = 0
    for drawn in (8, 20, 60, 200):
        for behind in range(min(drawn // 2, 40)):
            lead, wider = int(exact.leads[drawn, behind, 0]), int(bound.leads[0, behind, 0])
            if lead + 2 * behind <= drawn:  # else no counts have that lead after so many draws
                compared += 1
                assert lead <= wider <= 1.4 * lead + 1
    assert compared > 50


def test_rivals_add_up():
    """Ten classes: the same lead over all of them takes less chance of each than over one."""
    table = chance_table(100, 10, 0.01, 0.1)
    two = torch.tensor([[12.0, 12.0]], dtype=torch.float64)
    leads = torch.arange(1.0, 20, dtype=torch.float64).unsqueeze(1)
    alone = table.confident(torch.cat([leads, leads + 20], 1), torch.zeros(19, 2, dtype=torch.float64), 20)
    level = table.confident(leads.expand(-1, 2), torch.zeros(19, 2, dtype=torch.float64), 20)
    assert alone.sum() > level.sum() > 0
    # A fraction of a vote for the rival is at least as bad as none, and no worse than a whole one.
    lead_of = [
        int(table.confident(leads, torch.full((19, 1), votes, dtype=torch.float64), 20).sum()) for votes in (0, 0.3, 1)
    ]
    assert lead_of[0] >= lead_of[1] >= lead_of[2] > 0
    assert table.confident(two, torch.zeros(1, 2, dtype=torch.float64), 14).item()
