"""`smoothed evaluate` under the paper's protocol, by several processes: the rows and the records of one."""

import pytest
from torch.testing import assert_close

from launching import by_two
from smoothed import Result

EVALUATE = ("evaluate", "--model", "resnet20-cni-w", "--data", "sample", "--steps", 1, "--sigma-normalized", "0.1,0.24")


@pytest.mark.slow
@pytest.mark.parametrize("images", [3, 1])  # where there is less work than processes, they share its votes
def test_two_processes_give_the_rows_of_one(run, tmp_path, capsys, images):
    options = ["--images", images, "--num-samples", "1,5", "--precision", "float32"]
    if images == 1:
        options[-3] = "5"
        options += ["--sigma-normalized", "0.24", "--runs", 1]
    assert run(*EVALUATE, *options, "--json", tmp_path / "one.json") == 0
    table = capsys.readouterr().out
    done = by_two(*EVALUATE, *options, "--json", tmp_path / "two.json", "--out", tmp_path / "resume")
    assert done.returncode == 0, done.stderr
    one, two = (Result.load(tmp_path / name) for name in ("one.json", "two.json"))
    assert two.rows == one.rows
    for name, tensor in one.tensors.items():
        assert_close(two.tensors[name], tensor, rtol=0, atol=1e-5)  # sums are rounded as a trial of the speed decides
    assert len(table.splitlines()) == len(done.stdout.splitlines()) > 3  # one of them prints
    # What two have done, one needs not do again.
    assert run(*EVALUATE, *options, "--json", tmp_path / "again.json", "--out", tmp_path / "resume") == 0
    assert Result.load(tmp_path / "again.json").rows == one.rows
