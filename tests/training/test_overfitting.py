"""Catastrophic overfitting: what counts as it, and that a run says it once, records it, and keeps the epoch before."""

import json
import sys
from pathlib import Path

import pytest
import torch

from smoothed.checkpoint import read_tensors
from smoothed.training import loop
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import SINGLE_STEP
from smoothed.training.overfitting import note_of, overfits

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import tiny_set
from tiny_runs import SETTINGS, tiny_network


def epochs(*pairs):
    """Metrics of epochs from (accuracy under PGD, accuracy on training examples)."""
    return [
        {"epoch": i, "validation_robust": robust, "training_adversarial": training}
        for i, (robust, training) in enumerate(pairs, start=1)
    ]


@pytest.mark.parametrize(
    ("pairs", "images", "expected"),
    [
        ([(0.4, 0.5), (0.05, 0.7)], 1000, True),
        ([(0.4, 0.5), (0.38, 0.6), (0.0, 0.9)], 1000, True),
        ([(0.4, 0.5), (0.05, 0.45)], 1000, False),  # training accuracy fell too: a bad epoch
        ([(0.4, 0.5), (0.25, 0.7)], 1000, False),  # more than half is left
        ([(0.4, 0.5), (0.15, 0.7)], 10, False),  # within chance: 0.25 of ten images, deviation 0.19
        ([(0.4, 0.5), (0.15, 0.7)], 1000, True),
        ([(0.4, 0.5)], 1000, False),
        ([], 1000, False),
        ([(0.0, 0.2), (0.0, 0.5)], 1000, False),  # nothing to lose
        ([(0.4, 0.5), (0.0, 0.9), (0.42, 0.6)], 1000, False),  # recovered
    ],
)
def test_what_counts(pairs, images, expected):
    assert overfits(epochs(*pairs), images) is expected


def test_the_note_names_epochs_and_accuracies():
    text = note_of(epochs((0.41, 0.5), (0.39, 0.55), (0.02, 0.8)))
    assert "overfitting in epoch 3: accuracy under PGD-7 fell from 41.0 % to 2.0 %" in text
    assert "rose from 50.0 % to 80.0 %" in text
    assert "best.safetensors keeps epoch 1" in text


def run(folder, monkeypatch, robust, on_note=None, attack="nfgsm", stop=None, **settings):
    """A run of a tiny network whose validation returns these accuracies, one after the other."""
    values = iter(robust)
    monkeypatch.setattr(loop, "validate", lambda *_: (0.5, next(values)))
    config = TrainingConfig(**{**SETTINGS, "attack": attack, "epochs": 4, "validation_attack_images": 16, **settings})

    def watch(progress):
        if stop == progress.step:
            raise KeyboardInterrupt

    return loop.train(
        config, tiny_set(48, 0), tiny_set(1000, 1), folder, network=tiny_network(), on_note=on_note, on_step=watch
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def rising(monkeypatch):
    """Training accuracies that rise with each call, whatever the network does."""
    count = iter(range(1000))

    def accuracy(_):
        return torch.tensor(0.3 + 0.01 * next(count))

    monkeypatch.setattr("smoothed.training.step._Counting.accuracy", accuracy)


@pytest.mark.usefixtures("rising")
def test_it_is_said_once_recorded_and_the_epoch_before_is_kept(tmp_path, monkeypatch):
    notes, saved = [], {}
    end_epoch = loop.TrainingSession.end_epoch

    def copying(session, epoch):
        end_epoch(session, epoch)
        saved[epoch] = read_tensors(tmp_path / "last.safetensors")[0]

    monkeypatch.setattr(loop.TrainingSession, "end_epoch", copying)
    outcome = run(tmp_path, monkeypatch, [0.8, 0.9, 0.0, 0.1], notes.append)
    assert [line["catastrophic_overfitting"] for line in lines(tmp_path)] == [0, 0, 1, 1]
    assert len(notes) == 1
    assert notes[0].startswith("catastrophic overfitting in epoch 3: accuracy under PGD-7 fell from 90.0 % to 0.0 %")
    assert outcome.notes == tuple(notes)
    assert outcome.best["epoch"] == 2
    best = read_tensors(tmp_path / "best.safetensors")[0]
    assert all(torch.equal(tensor, saved[2][name]) for name, tensor in best.items())
    assert not all(torch.equal(tensor, saved[4][name]) for name, tensor in best.items())


@pytest.mark.usefixtures("rising")
def test_a_resumed_run_does_not_say_it_again(tmp_path, monkeypatch):
    notes = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, monkeypatch, [0.9, 0.0, 0.0], notes.append, stop=10)
    assert len(notes) == 1
    outcome = run(tmp_path, monkeypatch, [0.0], notes.append)
    assert len(notes) == 1
    assert outcome.notes == tuple(notes)
    assert [line["catastrophic_overfitting"] for line in lines(tmp_path)] == [0, 1, 1, 1]


@pytest.mark.parametrize("attack", SINGLE_STEP)
def test_every_single_step_attack_is_watched(attack, tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, [0.5] * 4, attack=attack, loss="consistency", epochs=2)
    assert all(0 <= line["training_adversarial"] <= 1 for line in lines(tmp_path))


@pytest.mark.parametrize("settings", [{"attack": "pgd"}, {"attack": "none"}, {"loss": "bernoulli"}])
def test_other_training_is_not(settings, tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, [0.9, 0.0, 0.0, 0.0], **settings)
    assert not any("training_adversarial" in line or "catastrophic_overfitting" in line for line in lines(tmp_path))


@pytest.mark.parametrize(("accumulation", "loss_samples"), [(1, 1), (2, 1), (1, 3)])
def test_the_accuracy_is_that_on_the_training_examples(accumulation, loss_samples, make_run, image_set):
    """Of a step, by the network before it on the examples that were made, which here are the images."""
    from smoothed.training.step import take_step

    data = image_set(12, size=4)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))
    settings = {"architecture": "custom", "injection": "none", "attack": "nfgsm", "eps": 0.0, "batch_size": 12}
    run = make_run(data, network, epochs=1, accumulation=accumulation, loss_samples=loss_samples, **settings)
    (batch,) = run.plan.batches(data, run.share, 0)
    parts = list(batch.parts(run.share, run.config.seed, run.config.augmentation))
    with torch.no_grad():
        right = sum((run.model(part.clean).argmax(1) == part.labels).sum().item() for part in parts)
    take_step(run, batch)
    assert run.accuracies[0].item() == pytest.approx(right / 12)
