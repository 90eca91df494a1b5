"""Each check against what it is documented to take and to refuse."""

import inspect
import weakref
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smoothed.errors import ArgumentError, SmoothedError
from smoothed.utils import checks


def untyped(check):
    """The check as a caller without type checking meets it: tests wrap every function in beartype."""
    return inspect.unwrap(check)


def one_image(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype).view(1, 1, 1, -1)


def test_inputs_in_range_come_back_as_they_are():
    inputs = one_image(0.0, 0.5, 1.0).requires_grad_()
    assert checks.check_inputs(inputs) is inputs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_inputs_keep_their_dtype(dtype):
    assert checks.check_inputs(one_image(0.25, 1.0, dtype=dtype)).dtype == dtype


def test_inputs_within_the_tolerance_are_clipped_in_a_copy():
    values = -9e-7, 0.5, 1 + 9e-7
    inputs = one_image(*values, dtype=torch.float64)
    assert checks.check_inputs(inputs).flatten().tolist() == [0.0, 0.5, 1.0]
    assert tuple(inputs.flatten().tolist()) == values


@given(st.lists(st.floats(-2e-6, 2e-6) | st.floats(1 - 2e-6, 1 + 2e-6), min_size=1, max_size=5))
def test_inputs_are_refused_exactly_beyond_the_tolerance(values):
    inputs = one_image(*values, dtype=torch.float64)
    if all(-1e-6 <= value <= 1 + 1e-6 for value in values):
        assert checks.check_inputs(inputs).flatten().tolist() == [min(max(value, 0.0), 1.0) for value in values]
    else:
        with pytest.raises(ArgumentError, match=r"inputs: expected images in \[0, 1\], got values in"):
            checks.check_inputs(inputs)


@pytest.mark.parametrize("values", [(-0.1, 0.5), (0.5, 1.1), (0.0, 255.0), (0.0, float("inf")), (-float("inf"), 1.0)])
def test_inputs_out_of_range(values):
    with pytest.raises(ArgumentError, match=r"in \[0, 1\], got values in .*; normalise inside the model"):
        checks.check_inputs(one_image(*values))


@pytest.mark.parametrize("values", [(float("nan"),), (0.0, float("nan"), 1.0), (float("inf"), float("nan"))])
def test_inputs_with_nan(values):
    with pytest.raises(ArgumentError, match="got NaN"):
        checks.check_inputs(one_image(*values))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_inputs_of_another_dtype(dtype):
    with pytest.raises(ArgumentError, match=f"inputs: expected a float tensor .*, got {dtype}; divide uint8 images"):
        checks.check_inputs(torch.zeros(1, 3, 2, 2, dtype=dtype))


def test_inputs_that_are_no_tensor():
    with pytest.raises(ArgumentError, match=r"expected a float tensor of images .*, got list"):
        untyped(checks.check_inputs)([[0.5]])


@pytest.mark.parametrize("shape", [(), (3,), (3, 2, 2), (1, 1, 3, 2, 2)])
def test_inputs_of_another_number_of_dimensions(shape):
    with pytest.raises(ArgumentError, match=r"expected shape \(N, C, H, W\), got shape \("):
        checks.check_inputs(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (1, 0, 2, 2), (1, 3, 0, 2)])
def test_inputs_without_a_pixel(shape):
    with pytest.raises(ArgumentError, match="expected at least one image, got an empty batch"):
        checks.check_inputs(torch.zeros(shape))


def test_inputs_are_called_what_the_caller_calls_them():
    with pytest.raises(ArgumentError, match=r"^clean: expected") as caught:
        checks.check_inputs(torch.zeros(3), "clean")
    assert caught.value.argument == "clean"
    assert isinstance(caught.value, SmoothedError)
    assert isinstance(caught.value, ValueError)


def test_labels():
    labels = torch.tensor([3, 0])
    assert checks.check_labels(labels, torch.zeros(2, 1, 1, 1)) is labels


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (torch.tensor([1, 2, 3]), r"torch.int64 \(3,\)"),
        (torch.tensor([[1], [2]]), r"torch.int64 \(2, 1\)"),
        (torch.tensor([1.0, 2.0]), r"torch.float32 \(2,\)"),
        (torch.tensor([1, 2], dtype=torch.int32), r"torch.int32 \(2,\)"),
        (torch.tensor(1), r"torch.int64 \(\)"),
        ([1, 2], "list"),
    ],
)
def test_labels_that_are_not_one_int64_an_image(labels, got):
    with pytest.raises(ArgumentError, match=rf"labels: expected int64 classes of shape \(2,\), got {got}"):
        untyped(checks.check_labels)(labels, torch.zeros(2, 1, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_logits(dtype):
    logits = torch.zeros(3, 2, dtype=dtype)
    assert checks.check_logits(logits, 3) is logits


def test_logits_of_an_output_object():
    output = SimpleNamespace(loss=None, logits=torch.zeros(3, 2))
    assert checks.check_logits(output, 3) is output.logits
    assert checks.output_logits(output) is output.logits
    assert checks.output_logits(output.logits) is output.logits
    assert checks.output_logits([1]) == [1]


@pytest.mark.parametrize(
    ("logits", "got"),
    [
        (torch.zeros(4, 10), r"torch.float32 \(4, 10\)"),
        (torch.zeros(3, 1), r"torch.float32 \(3, 1\)"),
        (torch.zeros(3), r"torch.float32 \(3,\)"),
        (torch.zeros(3, 10, 1), r"torch.float32 \(3, 10, 1\)"),
        (torch.zeros(3, 10, dtype=torch.int64), r"torch.int64 \(3, 10\)"),
        (
            (torch.zeros(3, 10), torch.zeros(3, 10)),
            "a tuple of 2; wrap the model in a function that returns its logits",
        ),
        ([torch.zeros(3, 10)], "a list of 1; wrap"),
        ({"loss": 0, "logits": torch.zeros(3, 10)}, "a dict with the keys loss, logits; wrap"),
        ({}, "an empty dict; wrap"),
        (dict.fromkeys("abcdefg"), "a dict with the keys a, b, c, d, e, ...; wrap"),
        (SimpleNamespace(logits=None), "an object of type SimpleNamespace; wrap"),
        (SimpleNamespace(logits=torch.zeros(4, 10)), r"torch.float32 \(4, 10\)$"),
        (None, "None; wrap"),
    ],
)
def test_logits_that_are_not_a_float_row_an_image(logits, got):
    with pytest.raises(ArgumentError, match=rf"model: expected float logits of shape \(3, K\), K >= 2, .*, got {got}"):
        untyped(checks.check_logits)(logits, 3)


class TestClasses:
    def test_in_range(self):
        labels = torch.tensor([0, 3, 1])
        assert checks.check_classes(labels, 4) is labels

    @pytest.mark.parametrize(("values", "got"), [([0, 4], 4), ([-1, 9], -1), ([-100], -100)])
    def test_out_of_range(self, values, got):
        with pytest.raises(ArgumentError, match=rf"targets: expected classes in 0\.\.3 of the model, got {got}$"):
            checks.check_classes(torch.tensor(values), 4, "targets")

    def test_a_tensors_bounds_are_read_once(self, monkeypatch):
        """On a GPU each reading waits for it, and attacks ask at each gradient."""
        read, own = [], torch.aminmax
        monkeypatch.setattr(torch, "aminmax", lambda labels: read.append(1) or own(labels))
        labels = torch.tensor([0, 3])
        for _ in range(3):
            checks.check_classes(labels, 4)
        assert len(read) == 1
        with pytest.raises(ArgumentError, match=r"0\.\.2 of the model, got 3"):
            checks.check_classes(labels, 3)  # for another network
        assert len(read) == 1
        checks.check_classes(labels.clone(), 4)
        assert len(read) == 2

    @pytest.mark.parametrize("through", ["itself", "a view", "its base"])
    def test_changes_in_place_are_noticed(self, through):
        base = torch.tensor([0, 1, 2, 0])
        labels = base[:3]
        checks.check_classes(labels, 3)
        {"itself": labels, "a view": labels[1:], "its base": base}[through][-1 if through != "its base" else 2] = 7
        with pytest.raises(ArgumentError, match="got 7"):
            checks.check_classes(labels, 3)
        labels.fill_(1)
        checks.check_classes(labels, 3)

    def test_nothing_is_kept_of_labels_that_are_gone(self):
        labels = torch.tensor([1])
        checks.check_classes(labels, 2)
        kept = weakref.ref(labels)
        del labels
        assert kept() is None

    def test_labels_of_inference_mode(self):
        """They have no version, so they are read each time."""
        with torch.inference_mode():
            labels = torch.tensor([0, 1])
            checks.check_classes(labels, 2)
            labels[0] = 5
        with pytest.raises(ArgumentError, match="got 5"):
            checks.check_classes(labels, 2)


@pytest.mark.parametrize("value", [1, 2, 10**12])
def test_positive(value):
    assert checks.check_positive(value, "steps") == value


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None, float("nan")])
def test_not_positive(value):
    with pytest.raises(ArgumentError, match=f"steps: expected an integer of at least 1, got {value!r}"):
        untyped(checks.check_positive)(value, "steps")


@pytest.mark.parametrize("value", [0, 0.0, 1e-300, 8 / 255, 7, 1e300])
def test_not_negative(value):
    assert checks.check_not_negative(value, "eps") == value


@pytest.mark.parametrize("value", [-1, -1e-300, float("inf"), float("nan"), False, "1", None])
def test_negative(value):
    with pytest.raises(ArgumentError, match=f"eps: expected a finite number of at least 0, got {value!r}"):
        untyped(checks.check_not_negative)(value, "eps")


@pytest.mark.parametrize("value", [0, 1, 0.0, 0.5, 1.0])
def test_fraction(value):
    assert checks.check_fraction(value, "momentum") == value


@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9, 2, float("nan"), float("inf"), True, "0.5", None])
def test_no_fraction(value):
    with pytest.raises(ArgumentError, match=r"momentum: expected a number in \[0, 1\], got "):
        untyped(checks.check_fraction)(value, "momentum")


@pytest.mark.parametrize("choices", [("soft", "hard"), {"soft": 1, "hard": 2}, (name for name in ("soft", "hard"))])
def test_choice(choices):
    assert checks.check_choice("soft", choices, "vote") == "soft"


@pytest.mark.parametrize("value", ["Soft", "", "so", None])
def test_no_choice(value):
    with pytest.raises(ArgumentError, match=f"vote: expected one of soft, hard, got {value!r}"):
        untyped(checks.check_choice)(value, ["soft", "hard"], "vote")


@pytest.mark.parametrize(
    ("value", "hint"),
    [("sfot", "; did you mean soft?"), ("softer", "; did you mean soft?"), ("hart", "; did you mean hard?"), ("x", "")],
)
def test_no_choice_names_similar_ones(value, hint):
    with pytest.raises(ArgumentError) as caught:
        checks.check_choice(value, ["soft", "hard"], "vote")
    assert str(caught.value) == f"vote: expected one of soft, hard, got {value!r}{hint}"


def test_no_choice_names_all_similar_ones():
    with pytest.raises(ArgumentError, match=r"; did you mean (wide28 or wide34|wide34 or wide28)\?$"):
        checks.check_choice("wide", ["wide28", "resnet", "wide34"], "architecture")
