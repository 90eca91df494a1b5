"""SplitMix64 and Box and Muller's transform against integers and floats of Python, and the law of what comes out."""

import math

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from smoothed import counter_based
from smoothed.counter_based import normals, places, splitmix64

CPU = torch.device("cpu")
WORD = 2**64


def splitmix64_of(state: int) -> int:
    """Java's SplittableRandom, on integers without a sign."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % WORD
    return state ^ (state >> 31)


def normal_of(key: int, place: int) -> float:
    bits = splitmix64_of((key + place) % WORD)
    high, low = divmod(bits, 2**32)
    return math.sqrt(-2 * math.log((high + 1) / 2**32)) * math.cos(2 * math.pi * low / 2**32)


@pytest.fixture(params=["in parts", "compiled"])
def maker(request, monkeypatch):
    """Both ways to the same numbers."""
    monkeypatch.setattr(counter_based, "COMPILE_AFTER", math.inf if request.param == "in parts" else -1)
    return request.param


def some_keys(count):
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=torch.Generator().manual_seed(3))


def test_splitmix64_is_that_of_integers():
    states = torch.cat([some_keys(1000), torch.tensor([0, -1, 2**63 - 1, -(2**63)])])
    assert [int(state) % WORD for state in splitmix64(states)] == [splitmix64_of(int(s) % WORD) for s in states]


def test_it_is_the_published_sequence():
    # The first outputs for the seed 1234567, as given with the algorithm's reference programs.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [int(bits) % WORD for bits in splitmix64(1234567 + places(4, CPU))] == expected


@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 2e-6), (torch.bfloat16, 0.02)])
def test_each_number_is_a_function_of_key_and_place(dtype, error):
    keys, spots = some_keys(3), places(50, CPU)
    drawn = normals(keys, spots, dtype)
    assert drawn.dtype == dtype
    expected = [[normal_of(int(key), int(place)) for place in spots] for key in keys]
    assert_close(drawn.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=error)


@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize("rows", [0, 1, 3, 700])
@pytest.mark.parametrize("count", [0, 1, 2, 1001])
def test_rows_and_places_may_be_taken_apart(rows, count):
    keys, spots = some_keys(rows), places(count, CPU)
    drawn = normals(keys, spots)
    assert drawn.shape == (rows, count)
    for row in range(0, rows, 97):
        assert_close(normals(keys[row : row + 1], spots)[0], drawn[row], rtol=0, atol=2e-6)
    assert_close(normals(keys, spots[count // 2 :]), drawn[:, count // 2 :], rtol=0, atol=2e-6)


def test_a_part_is_no_larger_than_what_is_made_at_a_time(monkeypatch):
    keys, spots = some_keys(5), places(70, CPU)
    whole = counter_based._in_parts(keys, spots, torch.float32)
    for most in (1, 16, 70, 150):
        monkeypatch.setitem(counter_based._AT_A_TIME, "cpu", most)
        assert_close(counter_based._in_parts(keys, spots, torch.float32), whole, rtol=0, atol=2e-6)


@pytest.mark.usefixtures("maker")
def test_affine_is_applied_to_every_row():
    keys, spots = some_keys(3), places(40, CPU)
    scale, shift = torch.linspace(0, 2, 40), torch.linspace(-5, 5, 40)
    assert_close(normals(keys, spots, affine=(scale, shift)), normals(keys, spots) * scale + shift)


@pytest.mark.usefixtures("maker")
def test_law():
    # Seed fixed; two million numbers, of which 1e-3 of a deviation more has p < 1e-3 already at 1.003.
    drawn = normals(some_keys(1000), places(2000, CPU), torch.float64)
    assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(1.005 * drawn.flatten().numpy(), "norm").pvalue < 1e-3
    # Neighbours in a row, and in a column; sizes of neighbours, too. Five deviations of the mean of products.
    for numbers in (drawn, drawn.abs() - drawn.abs().mean()):
        spread = float(numbers.square().mean())
        assert abs(float((numbers[1:] * numbers[:-1]).mean())) < 5 * spread / 1_998_000**0.5
        assert abs(float((numbers[:, 1:] * numbers[:, :-1]).mean())) < 5 * spread / 1_999_000**0.5


@pytest.mark.usefixtures("maker")
def test_tails_are_those_of_the_normal_law():
    # Of twenty million, 1,266 are expected beyond 4, and 11.5 beyond 5; five deviations.
    beyond = [0, 0]
    for block in range(10):
        drawn = normals(some_keys(1000) + block, places(2000, CPU)).abs()
        beyond = [count + int((drawn > edge).sum()) for count, edge in zip(beyond, (4, 5), strict=True)]
    assert abs(beyond[0] - 1266.8) < 5 * 1266.8**0.5
    assert 0 < beyond[1] < 11.5 + 5 * 11.5**0.5
    assert normals(some_keys(1), places(10, CPU)).isfinite().all()


def test_the_extremes_are_finite():
    """Bits that are all ones or all zeros, found by going back through the bijection."""

    def before(bits):
        inverse = [pow(multiplier, -1, WORD) for multiplier in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)]
        bits ^= bits >> 31 ^ bits >> 62
        bits = bits * inverse[1] % WORD
        bits ^= bits >> 27 ^ bits >> 54
        bits = bits * inverse[0] % WORD
        return bits ^ bits >> 30 ^ bits >> 60

    for bits in (0, WORD - 1, 2**32 - 1, 2**32, WORD - 2**32):
        state = before(bits)
        assert splitmix64_of(state) == bits
        key = torch.tensor([state - WORD if state >= WORD // 2 else state])
        for dtype in (torch.float32, torch.float64):
            drawn = normals(key, torch.tensor([0]), dtype)
            assert drawn.isfinite().all()
            assert drawn.abs() < 6.7


class TestCompiling:
    """When the compiler is asked, and what happens where it fails."""

    @pytest.fixture(autouse=True)
    def afresh(self, monkeypatch):
        counter_based._compiled.cache_clear()
        monkeypatch.setattr(counter_based, "_made", type(counter_based._made)())
        yield
        counter_based._compiled.cache_clear()

    def test_only_after_many_numbers(self, monkeypatch):
        asked = []
        monkeypatch.setattr(counter_based, "COMPILE_AFTER", 100)
        monkeypatch.setattr(torch, "compile", lambda function, **_: asked.append(function) or function)
        for _ in range(5):
            normals(some_keys(2), places(10, CPU))
        assert not asked
        for _ in range(5):
            normals(some_keys(2), places(10, CPU))
        assert asked == [counter_based._at_once]

    @pytest.mark.parametrize("flaw", ["raises", "other numbers"])
    def test_without_a_compiler_that_works_numbers_are_the_same(self, monkeypatch, flaw):
        keys, spots = some_keys(3), places(30, CPU)
        expected = normals(keys, spots)

        def compiler(function, **_):
            if flaw == "raises":
                raise RuntimeError("no compiler")
            return lambda *arguments: 1.01 * function(*arguments)

        monkeypatch.setattr(counter_based, "COMPILE_AFTER", -1)
        monkeypatch.setattr(torch, "compile", compiler)
        assert torch.equal(normals(keys, spots), expected)

    @pytest.mark.usefixtures("maker")
    def test_compiled_numbers_take_part_in_no_graph(self):
        scale = torch.ones(4, requires_grad=True)
        assert not normals(some_keys(2), places(4, CPU), affine=(scale, scale)).requires_grad
