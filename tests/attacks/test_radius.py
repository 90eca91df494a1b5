"""The radius of each norm: its default, and what makes no sense."""

import pytest

from refusing import check_refusals
from smoothed.attacks.radius import settled_radius


@pytest.mark.parametrize(
    ("eps", "norm", "radius"),
    [
        (None, "linf", 8 / 255),
        (None, "l2", 0.5),
        (0, "linf", 0.0),
        (4 / 255, "linf", 4 / 255),
        (1, "linf", 1.0),
        (0, "l2", 0.0),
        (30.5, "l2", 30.5),  # an L2 radius may exceed 1: the largest distance of two images is sqrt(C H W)
        (1, "l0", 1.0),
        (12.0, "l0", 12.0),
    ],
)
def test_radii_and_their_defaults(eps, norm, radius):
    found = settled_radius(eps, norm)
    assert (found, type(found)) == (radius, float)


def test_what_makes_no_sense():
    check_refusals(
        settled_radius,
        [
            ({"eps": 0.1, "norm": "l1"}, "norm: expected one of linf, l2, l0, got 'l1'"),
            ({"eps": -0.1, "norm": "linf"}, "eps: expected a finite number of at least 0, got -0.1"),
            ({"eps": float("nan"), "norm": "l2"}, "eps: expected a finite number of at least 0, got nan"),
            ({"eps": float("inf"), "norm": "l2"}, "eps: expected a finite number of at least 0, got inf"),
            ({"eps": "8/255", "norm": "linf"}, "eps: expected a finite number of at least 0, got '8/255'"),
            ({"eps": True, "norm": "linf"}, "eps: expected a finite number of at least 0, got True"),
            (
                {"eps": 8, "norm": "linf"},
                r"eps: expected a radius of at most 1 \(pixel units of \[0, 1\]\) in the L-inf norm, got 8; "
                "write 8/255 for 8 of 255 grey levels",
            ),
            ({"eps": 256, "norm": "linf"}, "in the L-inf norm, got 256$"),
            (
                {"eps": None, "norm": "l0"},
                "eps: expected a number of pixels for an L0 attack, got none; for example eps",
            ),
            ({"eps": 8 / 255, "norm": "l0"}, "eps: expected a whole number of pixels, at least 1, .*, got 0.0313725"),
            (
                {"eps": 2.5, "norm": "l0"},
                "eps: expected a whole number of pixels, at least 1, for an L0 attack, got 2.5",
            ),
            ({"eps": 0, "norm": "l0"}, "eps: expected a whole number of pixels, at least 1, for an L0 attack, got 0"),
        ],
    )
