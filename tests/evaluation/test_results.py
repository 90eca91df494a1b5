"""Files of results, rows and paired gains, on results that are made by hand."""

import json

import pytest
import torch
from safetensors.torch import save_file

from refusing import check_refusals
from smoothed.errors import ArgumentError, DataError, OutputError
from smoothed.evaluation.results import Accuracy, PairedGain, Result, paired_gain, tensors_path

ROWS = [
    {"vote": "none", "num_samples": 1, "clean": 0.5, "clean_interval": [0.4, 0.6], "robust_interval": None},
    {"vote": "soft", "num_samples": 8, "clean": 0.7, "clean_interval": [0.6, 0.8], "robust_interval": None},
    {"vote": "soft", "num_samples": 64, "clean": 0.8, "clean_interval": [0.7, 0.9], "robust_interval": None},
]


@pytest.fixture
def result():
    """A result with tensors of several types."""
    tensors = {
        "clean.right": torch.tensor([[True, False, True]]),
        "clean.draws": torch.tensor([[3, 5, 8]], dtype=torch.int32),
        "images": torch.rand(2, 3, 4, 4),
        "radius": torch.rand(3, dtype=torch.float64),
        "nothing": torch.zeros(0, 2),
    }
    gains = [PairedGain("soft over one draw", "clean", 0.2, (0.1, 0.3))]
    parts = {"setting": {"eps": 0.1}, "model": {"name": "m"}, "data": {"classes": ["a", "b"]}, "summary": {"x": [1]}}
    return Result("evaluate", ROWS, **parts, provenance={"seed": 3}, comparisons=gains, tensors=tensors)


def test_a_saved_result_is_read_as_it_was(result, tmp_path):
    path = result.save(tmp_path / "deep" / "result.json")
    again = Result.load(str(path))
    assert again.to_json() == json.loads(json.dumps(result.to_json()))
    assert again.comparisons == result.comparisons
    assert again.tensors.keys() == result.tensors.keys()
    for name, tensor in result.tensors.items():
        assert torch.equal(again.tensors[name], tensor)
        assert again.tensors[name].dtype == tensor.dtype
    assert sorted(file.name for file in path.parent.iterdir()) == ["result.json", "result.safetensors"]
    values = json.loads(path.read_text())
    assert (values["schema"], values["schema_version"], values["kind"]) == ("smoothed-result", 1, "evaluate")
    assert values["tensors"]["images"] == [2, 3, 4, 4]


def test_files_are_replaced_together(result, tmp_path):
    """A result without tensors takes away those of the earlier result of its name; missing tensors are no error."""
    path = result.save(tmp_path / "result.json")
    Result("evaluate", ROWS).save(path)
    assert not tensors_path(path).exists()
    assert Result.load(path).tensors == {}
    result.save(path)
    tensors_path(path).unlink()
    assert Result.load(path).tensors == {}
    assert Result.load(path).rows == ROWS


def test_no_other_file_is_replaced(result, tmp_path):
    beside = tmp_path / "result.safetensors"
    save_file({"weight": torch.ones(2)}, beside)
    before = beside.read_bytes()
    with pytest.raises(ArgumentError, match=r"path: expected another name, because result.safetensors lies beside it"):
        result.save(tmp_path / "result.json")
    with pytest.raises(ArgumentError, match=r"path: expected the name of a JSON file, got x.safetensors"):
        result.save(tmp_path / "x.safetensors")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not be written"):
        result.save(tmp_path / "file" / "result.json")
    assert beside.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "result.safetensors"]


def test_what_is_no_result_is_refused(result, tmp_path):
    def load(content):
        path = tmp_path / "result.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        Result.load(path)

    good = result.to_json()
    check_refusals(
        load,
        [
            ({"content": b"not JSON"}, "result.json: expected the JSON of a result, got"),
            ({"content": b"\xff\xfe"}, "result.json: expected the JSON of a result, got"),
            ({"content": [good]}, r"expected a result of smoothed \(schema smoothed-result\), got another JSON file"),
            ({"content": {"rows": []}}, r"expected a result of smoothed \(schema smoothed-result\), got another"),
            ({"content": {**good, "schema_version": 2}}, "expected schema version 1, got 2; update smoothed"),
            (
                {"content": {**good, "kind": "guess"}},
                "expected a result of one of the kinds attack, .*the kind 'guess'",
            ),
            (
                {"content": {name: good[name] for name in good if name not in {"rows", "summary"}}},
                "expected a result of one of the kinds .*, got one without rows, summary",
            ),
        ],
        DataError,
    )
    with pytest.raises(DataError, match=r"nowhere.json: could not be read \(No such file or directory\)"):
        Result.load(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match=r"could not be read \(Is a directory\)"):
        Result.load(tmp_path)


@pytest.mark.parametrize(
    "other", [{"images": torch.zeros(2, 3, 4, 5)}, {"more": torch.zeros(1)}, {}], ids=["shape", "name", "one less"]
)
def test_tensors_of_another_result_are_refused(result, other, tmp_path):
    path = result.save(tmp_path / "result.json")
    tensors = {**result.tensors, **other}
    if not other:
        del tensors["images"]
    Result("evaluate", ROWS, tensors=tensors).save(tmp_path / "other.json")
    (tmp_path / "other.safetensors").replace(tensors_path(path))
    with pytest.raises(
        DataError, match=r"result.safetensors: expected the tensors of result.json, got those of another"
    ):
        Result.load(path)


def test_damaged_tensors_are_refused(result, tmp_path):
    path = result.save(tmp_path / "result.json")
    tensors_path(path).write_bytes(b"half")
    with pytest.raises(DataError, match="got a truncated file or another format"):
        Result.load(path)


def test_rows_are_found_by_their_values(result):
    assert result.row(vote="soft", num_samples=8) is ROWS[1]
    assert result.row(vote="none") is ROWS[0] is result[0]
    assert len(result) == 3
    with pytest.raises(
        ArgumentError, match=r"row: expected values that exactly one row has, got .*, which 2 rows have"
    ):
        result.row(vote="soft")
    with pytest.raises(ArgumentError, match="which 0 rows have"):
        result.row(vote="soft", nothing=1)
    with pytest.raises(ArgumentError, match=r"kind: expected one of attack, certify, .*, got 'guess'"):
        Result("guess", [])


def test_pandas_has_a_column_for_each_bound(result):
    pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert list(frame.columns) == ["vote", "num_samples", "clean", "clean_interval_low", "clean_interval_high",
                                   "robust_interval_low", "robust_interval_high"]  # fmt: skip
    assert frame["clean_interval_low"].tolist() == [0.4, 0.6, 0.7]
    assert frame["clean_interval_high"].tolist() == [0.6, 0.8, 0.9]
    assert frame["robust_interval_low"].tolist() == [None] * 3
    nested = Result("worst-case", [{"robust": {"mean": 0.5, "interval": [0.4, 0.6]}, "worst": {"10": {"mean": 0.2}}}])
    (row,) = nested.to_pandas().to_dict("records")
    assert row == {"robust.mean": 0.5, "robust.interval_low": 0.4, "robust.interval_high": 0.6, "worst.10.mean": 0.2}


def test_a_paired_gain_by_hand():
    """Differences 1, 0, 1, 0, 0, 0, -1, 1: sum 2, squares 4; with the two added images n = 10."""
    before = torch.tensor([0, 1, 0, 0, 1, 0, 1, 0])
    after = torch.tensor([1, 1, 1, 0, 1, 0, 0, 1])
    gain = PairedGain.of("a over b", "clean", before, after)
    half_width = 1.96 * ((6 / 10 - 0.2**2) / 10) ** 0.5
    assert (gain.name, gain.images, gain.gain) == ("a over b", "clean", 0.25)
    assert gain.interval == (pytest.approx(0.2 - half_width), pytest.approx(0.2 + half_width))
    assert not gain.significant
    back = PairedGain.of("b over a", "clean", after, before)
    assert (back.gain, back.interval) == (-0.25, (pytest.approx(-0.2 - half_width), pytest.approx(half_width - 0.2)))


@pytest.mark.parametrize(
    ("differences", "significant"),
    [([1], False), ([1, 1], False), ([1] * 4, True), ([-1] * 4, True), ([0] * 500, False), ([1] * 20 + [0] * 80, True)],
)
def test_few_images_tell_nothing(differences, significant):
    """One image that a vote gains is no evidence; twenty of a hundred without a loss are."""
    gain = PairedGain.of("a", "clean", torch.zeros(len(differences)), torch.tensor(differences))
    assert gain.significant == significant
    assert -1 <= gain.interval[0] < gain.interval[1] <= 1


@pytest.mark.parametrize("p", [0.02, 0.5])
def test_the_interval_covers_the_true_gain(p):
    """In 2000 experiments of 60 images, on which a vote gains with probability p and loses with 0.02."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(2000, 60, generator=generator)
    differences = (draws < p).double() - (draws > 0.98).double()
    gains = [PairedGain.of("a", "clean", torch.zeros(60), each) for each in differences]
    covered = sum(gain.interval[0] <= p - 0.02 <= gain.interval[1] for gain in gains) / 2000
    assert covered > 0.95 - 4 * (0.95 * 0.05 / 2000) ** 0.5


def test_paired_gains_of_shares():
    """The decrease 0.1, 0.3 has mean 0.2 and sample deviation 0.02 ** 0.5."""
    mean, interval = paired_gain(torch.tensor([0.5, 0.9]).double(), torch.tensor([0.4, 0.6]).double())
    assert mean == pytest.approx(0.2, abs=1e-6)
    assert interval == (pytest.approx(0.2 - 1.96 * 0.1, abs=1e-6), pytest.approx(0.2 + 1.96 * 0.1, abs=1e-6))
    accuracy = Accuracy.of_shares([torch.tensor([1.0, 0.0]), torch.tensor([0.5, 1.0])])
    assert (accuracy.mean, accuracy.std) == (0.625, pytest.approx(0.25 / 2**0.5))
