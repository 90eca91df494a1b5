"""When passes become graphs, and that nothing else shows; torch.compile is a stand-in, so that no GPU is needed."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.cuda_graphs import AFTER, MOST, Graphs, has_graphs

CPU = torch.device("cpu")


class Square(nn.Module):
    """A module with a module inside, as graphs of operations have."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3).eval()

    def forward(self, inputs, weight):
        return self.norm(inputs).square() * weight


class Recorder:
    """In the place of torch.compile: what it makes writes all that it returns to the same memory, as a graph does.

    Args:
        breaks: the run that fails.
        stale: whether a run reads what was recorded, and not what it is given.
    """

    def __init__(self, *, breaks=0, stale=False):
        self.breaks, self.stale = breaks, stale
        self.modes, self.runs, self.memory, self.recorded = [], 0, {}, {}

    def __call__(self, function, *, mode=None):
        self.modes.append(mode)

        def run(*tensors):
            self.runs += 1
            if self.runs == self.breaks:
                raise RuntimeError("capture failed")
            shape = tensors[0].shape
            made = function(*self.recorded.setdefault(shape, tensors)) if self.stale else function(*tensors)
            return self.memory.setdefault(shape, torch.empty_like(made)).copy_(made)

        return run


@pytest.fixture
def made(monkeypatch):
    """Put a stand-in in the place of torch.compile, and let trials end as they should."""

    def put(quicker=True, **options):
        def seconds(actions):
            assert_close(*[action() for action in actions])
            return [2.0, 1.0] if quicker else [1.0, 2.0]

        recorder = Recorder(**options)
        monkeypatch.setattr(torch, "compile", recorder)
        monkeypatch.setattr("smoothed.cuda_graphs.seconds_in_turn", seconds)
        return recorder

    return put


@pytest.fixture
def module():
    return Square().requires_grad_(False)


@pytest.fixture
def weight():
    return torch.tensor([1.0, -2.0, 3.0])


def expected(inputs, weight):
    return inputs.square() * weight / (1 + 1e-5)


def run_often(graphs, weight, rows=5, times=AFTER):
    with torch.inference_mode():
        for _ in range(times):
            inputs = torch.rand(rows, 3)
            assert_close(graphs(inputs, weight), expected(inputs, weight))


def test_only_cuda_has_them():
    assert has_graphs(torch.device("cuda", 1))
    assert not has_graphs(torch.device("cpu"))


def test_what_is_returned_is_not_overwritten(made, module, weight):
    recorder, graphs = made(), Graphs(module, CPU)
    run_often(graphs, weight)
    passes = [(torch.rand(5, 3), weight * factor) for factor in (1, 2)]
    before = recorder.runs
    with torch.inference_mode():
        logits = [graphs(*each) for each in passes]
    assert recorder.runs == before + 2
    for got, each in zip(logits, passes, strict=True):
        assert_close(got, expected(*each))


def test_a_shape_is_tried_once_when_it_comes_often(made, module, weight):
    recorder, graphs = made(), Graphs(module, CPU)
    run_often(graphs, weight, times=AFTER - 1)
    run_often(graphs, weight, rows=4, times=AFTER - 1)
    assert recorder.modes == []
    run_often(graphs, weight, times=1)
    assert recorder.modes == ["reduce-overhead"]
    tried = recorder.runs
    run_often(graphs, weight, times=5)
    assert recorder.runs == tried + 5
    run_often(graphs, weight, rows=4, times=6)  # its own trial, and the same compiled function
    assert recorder.modes == ["reduce-overhead"]
    assert recorder.runs == tried + 5 + tried + 5


def test_no_more_shapes_than_memory_should_hold(made, module, weight):
    recorder, graphs = made(), Graphs(module, CPU)
    for rows in range(2, 2 + MOST):
        run_often(graphs, weight, rows=rows)
    assert len(recorder.memory) == MOST
    before = recorder.runs
    run_often(graphs, weight, rows=2 + MOST)
    assert recorder.runs == before


def test_what_does_not_pay_stays_as_it_was(made, module, weight):
    recorder, graphs = made(quicker=False), Graphs(module, CPU)
    run_often(graphs, weight)
    tried = recorder.runs
    run_often(graphs, weight, times=2 * AFTER)
    assert recorder.runs == tried


@pytest.mark.parametrize("breaks", [1, 2, 3])
def test_what_fails_is_left_alone(made, module, weight, breaks):
    recorder, graphs = made(breaks=breaks), Graphs(module, CPU)
    run_often(graphs, weight)
    run_often(graphs, weight, rows=4)
    assert recorder.runs == breaks


def test_a_graph_that_fails_later_is_left_alone_too(made, module, weight):
    recorder, graphs = made(), Graphs(module, CPU)
    run_often(graphs, weight)
    recorder.breaks = recorder.runs + 1
    inputs = torch.rand(5, 3)
    with torch.inference_mode():
        for _ in range(3):
            assert_close(graphs(inputs, weight), expected(inputs, weight))
    assert recorder.runs == recorder.breaks


def test_none_on_another_device(made, module, weight):
    recorder, graphs = made(), Graphs(module, torch.device("cuda"))
    run_often(graphs, weight, times=2 * AFTER)
    assert recorder.runs == 0


def test_threads_take_turns_in_the_memory_of_a_graph(made, module, weight):
    recorder, graphs = made(), Graphs(module, CPU)
    run_often(graphs, weight)
    slow, replay = threading.Event(), graphs._compiled

    def interrupted(*tensors):
        made = replay(*tensors)
        slow.wait(0.05)  # time for another thread to write
        return made

    graphs._compiled = interrupted
    inputs = [torch.rand(5, 3) for _ in range(4)]

    def one(rows):
        with torch.inference_mode():
            return graphs(rows, weight)

    with ThreadPoolExecutor(4) as pool:
        for got, rows in zip(pool.map(one, inputs), inputs, strict=True):
            assert_close(got, expected(rows, weight))
    assert recorder.runs > 4


def test_a_compiler_that_refuses_is_not_asked_again(monkeypatch, module, weight):
    asked = []

    def refuse(*_, **options):
        asked.append(options)
        raise RuntimeError("no such mode")

    monkeypatch.setattr(torch, "compile", refuse)
    graphs = Graphs(module, CPU)
    run_often(graphs, weight)
    run_often(graphs, weight, rows=4)
    assert asked == [{"mode": "reduce-overhead"}]


def test_a_graph_that_computes_something_else_is_not_used(made, module, weight, monkeypatch):
    recorder, graphs = made(stale=True), Graphs(module, CPU)
    monkeypatch.setattr("smoothed.cuda_graphs.seconds_in_turn", lambda _: [2.0, 1.0])
    run_often(graphs, weight)
    tried = recorder.runs
    assert tried > 0
    run_often(graphs, weight, times=3)
    assert recorder.runs == tried


def test_none_under_gradients(made, module, weight):
    recorder, graphs = made(), Graphs(module, CPU)
    run_often(graphs, weight)
    before = recorder.runs
    inputs = torch.rand(5, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(graphs(inputs, weight).sum(), inputs)
    assert_close(gradient, 2 * inputs.detach() * weight / (1 + 1e-5))
    assert recorder.runs == before


def test_none_where_a_pass_changes_the_module(made, module, weight):
    recorder, graphs = made(), Graphs(module, CPU)
    module.norm.train()
    inputs = torch.rand(5, 3)
    with torch.inference_mode():
        for _ in range(2 * AFTER):
            graphs(inputs, weight)
    assert recorder.runs == 0
    assert module.norm.num_batches_tracked == 2 * AFTER


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_torch_itself(module, weight, monkeypatch):
    """On a CPU it compiles in the same mode, and then goes without graphs; rows vary, and so may its kernels."""
    monkeypatch.setattr("smoothed.cuda_graphs.seconds_in_turn", lambda _: [2.0, 1.0])
    graphs = Graphs(module, CPU)
    for rows in (5, 4, 5, 3):
        run_often(graphs, weight, rows=rows)
    assert list(graphs._pays.values()) == [True] * 3
