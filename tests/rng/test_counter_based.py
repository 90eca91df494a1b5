"""SplitMix64 and the laws against integers and floats of Python, and the distribution of what comes out."""

import math
import shutil
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from smoothed.rng import counter_based
from smoothed.rng.counter_based import (
    compile_numbers,
    laplace,
    normal,
    normals,
    numbers,
    positions,
    positions_channels_last,
    splitmix64,
    uniform,
)

CPU = torch.device("cpu")
WORD = 2**64


def splitmix64_of(state: int) -> int:
    """Java's SplittableRandom, on integers without a sign."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % WORD
    return state ^ (state >> 31)


def normal_of(bits: int) -> float:
    high, low = divmod(bits, 2**32)
    return math.sqrt(-2 * math.log((high + 1) / 2**32)) * math.cos(2 * math.pi * low / 2**32)


def uniform_of(bits: int) -> float:
    """The bits say, with a sign, how many cells of 2^-64 of the range the number is from its middle."""
    return math.sqrt(3) * (bits - WORD * (bits >= WORD // 2)) / (WORD // 2)


def laplace_of(bits: int) -> float:
    return (1 if bits % 2 else -1) * math.log((bits // 2**32 + 1) / 2**32) / math.sqrt(2)


ORACLES = {normal: normal_of, uniform: uniform_of, laplace: laplace_of}
DISTRIBUTIONS = {
    normal: stats.norm(),
    uniform: stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    laplace: stats.laplace(scale=math.sqrt(0.5)),
}
laws = pytest.mark.parametrize("law", ORACLES)


@pytest.fixture(params=["in parts", "compiled"])
def maker(request):
    """Both ways to the same numbers."""
    compile_numbers(on=request.param == "compiled")
    yield request.param
    compile_numbers(on=False)


def some_keys(count):
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=torch.Generator().manual_seed(3))


def some_bits(count):
    return splitmix64(some_keys(count))


def made_of(law, bits, dtype):
    return law(torch.empty(len(bits), dtype=dtype), bits.clone(), None)


def of_integers(*words):
    return torch.tensor([word - WORD * (word >= WORD // 2) for word in words])


def test_splitmix64_is_that_of_integers():
    states = torch.cat([some_keys(1000), torch.tensor([0, -1, 2**63 - 1, -(2**63)])])
    assert [int(state) % WORD for state in splitmix64(states)] == [splitmix64_of(int(s) % WORD) for s in states]


def test_it_is_the_published_sequence():
    # The first outputs for the seed 1234567, as given with the algorithm's reference programs.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [int(bits) % WORD for bits in splitmix64(1234567 + positions(4, CPU))] == expected


@pytest.mark.slow
@laws
@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize(
    ("dtype", "error"),
    [(torch.float64, 1e-9), (torch.float32, 2e-6), (torch.bfloat16, 0.02), (torch.float16, 2e-3)],
)
def test_each_number_is_a_function_of_key_and_place(law, dtype, error):
    keys, spots = some_keys(3), positions(50, CPU)
    drawn = numbers(law, keys, spots, dtype)
    assert drawn.dtype == dtype
    expected = [[ORACLES[law](splitmix64_of(int(key + place) % WORD)) for place in spots] for key in keys]
    assert_close(drawn.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=error)


@pytest.mark.slow
@laws
@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize("rows", [1, 3])
def test_positions_may_be_what_floats_are_not(law, rows):
    """A compiled maker is told that places are floats: all of these are other floats, or none."""
    words = [0x7FF0000000000001, 0xFFF4000000000000, 0x7FF8000000000000, 0x7FF0000000000000, 2**63, 1, 2**52 - 1, 0]
    keys, spots = some_keys(rows), of_integers(*(word + last for word in words for last in range(5)))
    drawn = numbers(law, keys, spots)
    expected = [[ORACLES[law](splitmix64_of(int(key + place) % WORD)) for place in spots] for key in keys]
    assert_close(drawn.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-6)


@pytest.mark.usefixtures("maker")
def test_normals_are_the_numbers_of_the_normal_law():
    keys, spots = some_keys(3), positions(50, CPU)
    assert torch.equal(normals(keys, spots), numbers(normal, keys, spots))


@laws
@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize("rows", [0, 1, 3, 700])
@pytest.mark.parametrize("count", [0, 1, 2, 1001])
def test_rows_and_positions_may_be_taken_apart(law, rows, count):
    keys, spots = some_keys(rows), positions(count, CPU)
    drawn = numbers(law, keys, spots)
    assert drawn.shape == (rows, count)
    for row in range(0, rows, 97):
        assert_close(numbers(law, keys[row : row + 1], spots)[0], drawn[row], rtol=0, atol=2e-6)
    assert_close(numbers(law, keys, spots[count // 2 :]), drawn[:, count // 2 :], rtol=0, atol=2e-6)


@laws
def test_a_part_is_no_larger_than_what_is_made_at_a_time(monkeypatch, law):
    keys, spots = some_keys(5), positions(70, CPU)
    whole = numbers(law, keys, spots)
    for most in (1, 16, 70, 150):
        monkeypatch.setitem(counter_based._CHUNK_SIZES, "cpu", most)
        assert_close(numbers(law, keys, spots), whole, rtol=0, atol=2e-6)


@pytest.mark.usefixtures("maker")
def test_affine_is_applied_to_every_row():
    keys, spots = some_keys(3), positions(40, CPU)
    scale, shift = torch.linspace(0, 2, 40), torch.linspace(-5, 5, 40)
    assert_close(normals(keys, spots, affine=(scale, shift)), normals(keys, spots) * scale + shift)


@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize("rows", [1, 5])
def test_what_is_added_may_be_another_for_each_row(monkeypatch, rows):
    monkeypatch.setattr(counter_based, "_CHUNK_SIZES", {"cpu": 64})  # in parts, of several rows or of less than one
    for count in (20, 150):
        keys, spots = some_keys(rows), positions(count, CPU)
        scale, added = torch.linspace(0, 2, count), torch.randn(rows, count)
        expected = normals(keys, spots, torch.float64) * scale.double() + added.double()
        for dtype, error in ((torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2**-7)):
            affine = scale.to(dtype), added.to(dtype)
            made = normals(keys, spots, dtype, affine)
            assert (made.shape, made.dtype) == ((rows, count), dtype)
            assert_close(made.double(), expected, rtol=error, atol=4 * error)


def test_positions_of_images_with_their_channels_last():
    spots = positions_channels_last(3, 20, CPU).view(4, 5, 3)
    assert torch.equal(spots.permute(2, 0, 1), positions(60, CPU).view(3, 4, 5))


@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize(("law", "biased"), [(normal, 1.005), (uniform, 1.005), (laplace, 1.01)])
def test_law(law, biased):
    # Seed fixed; two million numbers: a deviation of so much more fails.
    drawn = numbers(law, some_keys(1000), positions(2000, CPU), torch.float64)
    assert stats.kstest(drawn.flatten().numpy(), DISTRIBUTIONS[law].cdf).pvalue > 1e-3
    assert stats.kstest(biased * drawn.flatten().numpy(), DISTRIBUTIONS[law].cdf).pvalue < 1e-3
    # Five deviations of the mean and of the variance.
    kurtosis = float(DISTRIBUTIONS[law].stats("k")) + 3
    assert abs(float(drawn.mean())) < 5 / 2e6**0.5
    assert abs(float(drawn.square().mean()) - 1) < 5 * ((kurtosis - 1) / 2e6) ** 0.5
    # Neighbours in a row, and in a column; sizes of neighbours, too. Five deviations of the mean of products.
    for some in (drawn, drawn.abs() - drawn.abs().mean()):
        spread = float(some.square().mean())
        assert abs(float((some[1:] * some[:-1]).mean())) < 5 * spread / 1_998_000**0.5
        assert abs(float((some[:, 1:] * some[:, :-1]).mean())) < 5 * spread / 1_999_000**0.5


@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize(("law", "edges"), [(normal, (4, 5)), (laplace, (6, 10))])
def test_tails_are_those_of_the_law(law, edges):
    # Of twenty million, 1,267 normals are expected beyond 4, and 11.5 beyond 5; of Laplace's law 4,127 beyond 6, and
    # 14.4 beyond 10. Five deviations.
    expected = [4e7 * DISTRIBUTIONS[law].sf(edge) for edge in edges]
    beyond = [0, 0]
    for block in range(10):
        drawn = numbers(law, some_keys(1000) + block, positions(2000, CPU)).abs()
        beyond = [count + int((drawn > edge).sum()) for count, edge in zip(beyond, edges, strict=True)]
    assert abs(beyond[0] - expected[0]) < 5 * expected[0] ** 0.5
    assert 0 < beyond[1] < expected[1] + 5 * expected[1] ** 0.5
    assert numbers(law, some_keys(1), positions(10, CPU)).isfinite().all()


def test_the_extremes_are_finite():
    """Bits that are all ones or all zeros, found by going back through the bijection."""

    def before(bits):
        inverse = [pow(multiplier, -1, WORD) for multiplier in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)]
        bits ^= bits >> 31 ^ bits >> 62
        bits = bits * inverse[1] % WORD
        bits ^= bits >> 27 ^ bits >> 54
        bits = bits * inverse[0] % WORD
        return bits ^ bits >> 30 ^ bits >> 60

    bounds = {normal: 6.7, uniform: math.sqrt(3), laplace: 15.7}
    for bits in (0, WORD - 1, 2**32 - 1, 2**32, WORD - 2**32, WORD // 2 - 1, WORD // 2):
        state = before(bits)
        assert splitmix64_of(state) == bits
        for dtype in (torch.float32, torch.float64):
            for law, bound in bounds.items():
                drawn = numbers(law, of_integers(state), torch.tensor([0]), dtype)
                assert drawn.isfinite().all()
                assert drawn.abs() < bound


class TestUniform:
    """The law on the bits alone, by fractions, which don't round."""

    dtypes = pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 24), (torch.float64, 53)])

    @dtypes
    def test_the_ends_are_half_a_cell_inside(self, dtype, digits):
        low, high = (Fraction(float(end)) for end in made_of(uniform, of_integers(WORD // 2, WORD // 2 - 1), dtype))
        assert low == -high
        assert high**2 < 3
        # The root of 3, rounded to the dtype, and its product with the last half, rounded: two units of its last digit.
        exact = Fraction(math.isqrt(3 * 10**60), 10**30) * (1 - Fraction(1, 2**digits))
        assert abs(high - exact) < 2 * exact / 2**digits

    @dtypes
    def test_around_0_there_is_a_half_on_each_side(self, dtype, digits):
        below, above = made_of(uniform, of_integers(WORD - 1, 0), dtype)
        assert below == -above
        assert float(above) == pytest.approx(math.sqrt(3) / 2**digits, rel=1e-6)

    @dtypes
    def test_all_bits_the_other_way_round_give_the_opposite(self, dtype, digits):
        del digits
        bits = some_bits(10_000)
        assert torch.equal(made_of(uniform, ~bits, dtype), -made_of(uniform, bits, dtype))

    @dtypes
    def test_neighbours_are_different_numbers_and_lower_bits_change_none(self, dtype, digits):
        cell = 2 ** (64 - digits)
        for first in (0, WORD // 2, WORD // 2 - 1000 * cell, WORD - 1000 * cell, WORD // 3 // cell * cell):
            bits = of_integers(*(first + number * cell for number in range(1000)))
            drawn = made_of(uniform, bits, dtype)
            assert (drawn.diff() > 0).all()
            assert torch.equal(made_of(uniform, bits + (cell - 1), dtype), drawn)

    def test_float32_is_the_middle_of_its_cell(self):
        coarse, fine = (made_of(uniform, some_bits(10_000), dtype).double() for dtype in (torch.float32, torch.float64))
        half = math.sqrt(3) / 2**24
        assert ((coarse - fine).abs() < half + 2e-7).all()
        assert (coarse - fine).abs().max() > 0.9 * half

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_rounded_to_fewer_digits_none_is_beyond_the_rounded_end(self, dtype):
        drawn = numbers(uniform, some_keys(100), positions(1000, CPU), dtype)
        assert drawn.abs().max() == torch.tensor(math.sqrt(3), dtype=dtype)


class TestLaplace:
    dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])

    @dtypes
    def test_one_bit_is_the_sign_and_nothing_but_it(self, dtype):
        bits = some_bits(10_000)
        drawn = made_of(laplace, bits, dtype)
        assert torch.equal(made_of(laplace, bits ^ 1, dtype), -drawn)
        for other in range(1, 64):
            changed = made_of(laplace, bits ^ (1 << other if other < 63 else -(2**63)), dtype)
            assert torch.equal(changed.sign(), drawn.sign())
            assert torch.equal(changed, drawn) == (other < 32)

    @dtypes
    def test_the_ends(self, dtype):
        # The smallest of 2^32 numbers, with both signs; the largest, whose logarithm is 0.
        low, high, none = made_of(laplace, of_integers(1, 0, WORD - 1), dtype)
        assert float(high) == -float(low) == pytest.approx(32 * math.log(2) / math.sqrt(2), rel=1e-6)
        assert none == 0

    @pytest.mark.usefixtures("maker")
    def test_sign_and_size_are_independent(self):
        drawn = numbers(laplace, some_keys(1000), positions(2000, CPU), torch.float64).flatten()
        # Two million: five deviations of the share of a sign, and of the mean of a product.
        assert abs(float(drawn.sign().mean())) < 5 / 2e6**0.5
        size = drawn.abs() * math.sqrt(2)
        assert abs(float((drawn.sign() * (size - 1)).mean())) < 5 / 2e6**0.5
        for half in (size[drawn > 0], size[drawn < 0]):
            assert stats.kstest(half.numpy(), "expon").pvalue > 1e-3


class TestCompiling:
    """When the compiler is asked, and what happens where it fails."""

    @pytest.fixture(autouse=True)
    def afresh(self):
        counter_based._compiled.cache_clear()
        yield
        compile_numbers(on=False)
        counter_based._compiled.cache_clear()

    def test_only_once_it_is_asked_for(self, monkeypatch):
        asked = []
        monkeypatch.setattr(torch, "compile", lambda function, **_: asked.append(function) or function)
        normals(some_keys(2), positions(10, CPU))
        assert not asked
        compile_numbers()
        for _ in range(2):
            normals(some_keys(2), positions(10, CPU))
        assert [function.__name__ for function in asked] == ["normal"]
        numbers(laplace, some_keys(2), positions(10, CPU))
        assert [function.__name__ for function in asked] == ["normal", "laplace"]
        assert asked[0].__code__ is not asked[1].__code__
        compile_numbers(on=False)
        numbers(uniform, some_keys(2), positions(10, CPU))
        assert len(asked) == 2

    @laws
    @pytest.mark.parametrize("flaw", ["raises", "other numbers"])
    def test_without_a_compiler_that_works_numbers_are_the_same(self, monkeypatch, law, flaw):
        keys, spots = some_keys(3), positions(30, CPU)
        expected = numbers(law, keys, spots)

        def compiler(function, **_):
            if flaw == "raises":
                raise RuntimeError("no compiler")
            return lambda *arguments: 1.01 * function(*arguments)

        monkeypatch.setattr(torch, "compile", compiler)
        compile_numbers()
        assert torch.equal(numbers(law, keys, spots), expected)

    @pytest.mark.usefixtures("maker")
    def test_compiled_numbers_take_part_in_no_graph(self):
        scale = torch.ones(4, requires_grad=True)
        assert not normals(some_keys(2), positions(4, CPU), affine=(scale, scale)).requires_grad

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
    def test_all_laws_compile_in_one_program(self):
        """In a program of its own, where no shape is checked: each is one graph, and no form is given up."""
        run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
        assert run.stdout.split() == ["same"] * 36, run.stderr
        assert "recompile_limit" not in run.stderr


PROGRAM = """
import torch
from smoothed.rng import counter_based as made

def numbers(on, *arguments):
    made.compile_numbers(on=on)
    return made.numbers(*arguments)

where = made.positions(3000, torch.device("cpu"))
scale, shift = torch.rand(3000), torch.rand(3000)
for law in (made.normal, made.uniform, made.laplace):
    for dtype in (torch.float32, torch.float64):
        for keys in (torch.arange(7) * 12345, torch.tensor([678])):
            for affine in (None, (scale, shift), (scale, torch.rand(len(keys), 3000))):
                affine = affine and tuple(part.to(dtype) for part in affine)
                ours, own = (numbers(on, law, keys, where, dtype, affine) for on in (True, False))
                torch.testing.assert_close(ours, own, rtol=0, atol=2e-6)
                form = len(keys) == 1, min(affine[1].ndim, len(keys)) if affine else None
                assert made._compiled(law, "cpu", dtype, *form).__name__ == law.__name__, "not compiled"
                assert affine or law is not made.uniform or torch.equal(ours, own)
                print("same")
assert not torch._dynamo.utils.counters["graph_break"]
"""
