"""Results of every kind: saved and read again, printed, as a table of pandas, and as a plot."""

import json

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

import smoothed
from small_results import KINDS, small_result
from smoothed.errors import ArgumentError, OutputError

PLOTTED = {"evaluate", "sweep"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_result_is_the_same_when_it_is_read(kind, tmp_path):
    result = small_result(kind)
    again = smoothed.Result.load(result.save(tmp_path / "result.json"))
    assert again.to_json() == result.to_json()
    assert again.rows == result.rows
    assert str(again) == str(result)
    assert str(result).strip()
    assert all(len(line) <= 100 for line in str(result).splitlines())
    assert again.tensors.keys() == result.tensors.keys()
    for name, tensor in result.tensors.items():
        assert torch.equal(again.tensors[name], tensor)
        assert again.tensors[name].dtype == tensor.dtype
        assert not tensor.requires_grad
        assert tensor.device.type == "cpu"
    assert (tmp_path / "result.safetensors").exists() == bool(result.tensors)
    assert result.provenance["smoothed"] == smoothed.__version__


@pytest.mark.parametrize("kind", KINDS)
def test_rows_become_columns(kind):
    pd = pytest.importorskip("pandas")
    result = small_result(kind)
    frame = result.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == len(result.rows)
    assert not [name for name in frame.columns if name.endswith("interval")]
    if kind == "evaluate":
        assert frame["clean"].tolist() == [row["clean"] for row in result.rows]
        assert frame["robust_interval_high"].tolist() == [row["robust_interval"][1] for row in result.rows]
        assert "clean_interval_low" in frame.to_csv().splitlines()[0]
    if kind == "worst-case":
        assert frame["robust.interval_low"].iloc[-1] == result.rows[-1]["robust"]["interval"][0]
        assert frame["worst.2.mean"].iloc[-1] == result.rows[-1]["worst"]["2"]["mean"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(PLOTTED))
def test_plots_have_the_format_of_their_suffix(kind, tmp_path):
    result = small_result(kind)
    figure = result.plot(tmp_path / "deep" / "plot.png")
    assert isinstance(figure, Figure)
    assert imread(tmp_path / "deep" / "plot.png").std() > 0.05
    for suffix, start in ((".pdf", b"%PDF"), (".svg", b"<?xml"), (".SVG", b"<?xml")):
        result.plot(tmp_path / f"plot{suffix}")
        assert (tmp_path / f"plot{suffix}").read_bytes().startswith(start)
    assert isinstance(result.plot(), Figure)
    with pytest.raises(ArgumentError, match=r"plot: expected a file name that ends in .*\.pdf.*, got plot.txt"):
        result.plot(tmp_path / "plot.txt")
    with pytest.raises(ArgumentError, match=r"plot: expected a file name that ends in .*, got plot"):
        result.plot(tmp_path / "plot")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not be written"):
        result.plot(tmp_path / "file" / "plot.png")
    assert not (tmp_path / "plot.txt").exists()


@pytest.mark.parametrize("kind", sorted(set(KINDS) - PLOTTED))
def test_other_kinds_have_no_plot(kind):
    with pytest.raises(ArgumentError, match=f"result: expected one of evaluate, sweep, which have a plot, got {kind}"):
        small_result(kind).plot()


def test_a_sweep_needs_its_tensors(tmp_path):
    path = small_result("sweep").save(tmp_path / "result.json")
    (tmp_path / "result.safetensors").unlink()
    result = smoothed.Result.load(path)
    for use in (str, lambda result: result.plot()):
        with pytest.raises(ArgumentError, match="result: expected a sweep with its file of tensors beside it, got one"):
            use(result)
    assert len(result) == 12


def test_every_row_of_a_sweep_is_read_off_its_tensors():
    result = small_result("sweep")
    sigmas, votes, counts = (result.setting[name] for name in ("sigmas", "votes", "num_samples"))
    for row in result.rows:
        place = sigmas.index(row["sigma"]), votes.index(row["vote"]), counts.index(row["num_samples"])
        for kind, name in enumerate(("clean", "robust")):
            assert row[name] == result.tensors["right"][(kind, *place)].double().mean()


def test_what_is_printed_says_what_it_means():
    """Each sentence has its numbers from the result."""
    gain = small_result("evaluate").comparisons[-1]
    low, high = (f"{100 * bound:+.1f}" for bound in gain.interval)
    said = " ".join(str(small_result("evaluate")).split())
    assert f"{100 * gain.gain:+.1f} points under PGD-2 (paired 95 % interval {low} to {high}" in said
    assert f"Gain of the {gain.name}: " in said
    assert f"to {high}: may be chance)" in said or gain.significant
    (row,) = small_result("attack").rows
    said = " ".join(str(small_result("attack")).split())
    clean, robust = (f"{100 * row[name]:.1f} %" for name in ("clean", "robust"))
    assert f"{clean} accuracy on clean images, {robust} on attacked images" in said
    assert "sigma 0.25 (1 normalised)" in said
    kept = small_result("train").summary["kept"]["best"]
    assert f"clean {100 * kept['validation_clean']:.2f} %" in str(small_result("train"))
    for kind in ("certify", "worst-case"):
        assert "The mean certified L2 radius is" in " ".join(str(small_result(kind)).split())


def test_the_json_file_is_plain(tmp_path):
    """No NaN and no infinity, which other readers of JSON refuse."""

    def refuse(value):
        raise AssertionError(value)

    for kind in KINDS:
        path = small_result(kind).save(tmp_path / f"{kind}.json")
        json.loads(path.read_text(), parse_constant=refuse)
