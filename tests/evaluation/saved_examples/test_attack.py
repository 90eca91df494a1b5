"""Adversarial images of a set in a file, against an attack whose effect is known; run, it is killed."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

import known
from launching import Started, run_script
from smoothed import Gaussian, Smoothed
from smoothed.checkpoint import write_tensors
from smoothed.errors import CheckpointError
from smoothed.evaluation.correctness import BATCH
from smoothed.evaluation.resume import ResumeFolder
from smoothed.evaluation.saved_examples.attack import (
    attack_dataset,
    load_examples,
    pixel_fingerprint,
    read_examples_record,
    save_examples,
)

VALUES = range(128, 228)


def darker(_model, inputs, _labels, generator=None):  # noqa: ARG001 - an attack
    return inputs - 0.101


def test_images_and_accuracies_are_the_known_ones(tmp_path):
    data = known.pixels(*VALUES)
    made = attack_dataset(Smoothed(known.Threshold(), num_samples=3), data, darker)
    assert torch.equal(made.images, data.images / 255 - 0.101)
    assert float(made.clean.shares.mean()) == 1
    assert float(made.attacked.shares.mean()) == sum(value / 255 - 0.101 > 0.5 for value in VALUES) / len(VALUES)
    path = save_examples(tmp_path / "made.safetensors", made, {"attack": "darker", "eps": 0.1})
    tensors, record = load_examples(path)
    assert torch.equal(tensors["images"], made.images)
    assert tensors["images"].dtype == torch.float32
    assert torch.equal(tensors["labels"], data.labels)
    assert tensors["index"].tolist() == list(range(100))
    assert (record["attack"], record["eps"]) == ("darker", 0.1)


def test_the_attack_sees_fresh_draws_and_all_is_of_the_seed():
    def noisy(model, inputs, _labels, generator=None):
        assert not torch.equal(model(inputs), model(inputs))
        return (inputs + 0.1 * torch.rand(inputs.shape, generator=generator)).clamp(0, 1)

    smoothed = Smoothed(known.Threshold(), Gaussian(0.3), num_samples=1)
    first, again, other = (attack_dataset(smoothed, known.pixels(*VALUES), noisy, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.attacked.right, again.attacked.right)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.clean.right, other.clean.right)


def attack_long(folder=None, on_progress=lambda *_: None):
    """Three batches of a random attack, voted on at random."""

    def noisy(model, inputs, _labels, generator=None):
        return (inputs + 0.1 * model(inputs)[:, :1, None, None] * torch.rand(inputs.shape, generator=generator)).clamp(
            0, 1
        )

    data = known.pixels(*[VALUES[place % 100] for place in range(2 * BATCH + 50)])
    smoothed = Smoothed(known.Threshold(), Gaussian(0.3), num_samples=3)
    resume = None if folder is None else ResumeFolder(folder, {"attack": "noisy"})
    return attack_dataset(smoothed, data, noisy, seed=5, resume=resume, on_progress=on_progress)


@pytest.mark.slow
def test_a_killed_attack_goes_on_and_ends_with_the_same_images(tmp_path):
    assert Started(run_script, __file__, str(tmp_path / "kept")).end().returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").glob("*.safetensors")}
    assert len(before) == 2
    seen = []
    resumed = attack_long(tmp_path / "kept", lambda *progress: seen.append(progress))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    never_killed = attack_long()
    for stream in ("clean", "attacked"):
        ours, theirs = getattr(resumed, stream).to_tensors(), getattr(never_killed, stream).to_tensors()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert resumed.images.numpy().tobytes() == never_killed.images.numpy().tobytes()
    assert torch.equal(resumed.labels, never_killed.labels)


def test_the_pixel_fingerprint_does_not_depend_on_the_last_bit_of_a_float():
    class Rounded:
        """The same set on a device that divides by 255 in another way."""

        def batches(self, size):
            for images, labels in known.pixels(*range(256)).batches(size):
                yield images * (1 + 2**-23), labels

    assert pixel_fingerprint(Rounded()) == pixel_fingerprint(known.pixels(*range(256)))
    assert pixel_fingerprint(known.pixels(1, *range(1, 256))) != pixel_fingerprint(known.pixels(*range(256)))


def test_another_kind_of_file_is_refused(tmp_path):
    path = write_tensors(tmp_path / "weights.safetensors", {"weight": torch.zeros(1)}, {"format_version": 1})
    with pytest.raises(
        CheckpointError, match="expected adversarial images written by `smoothed attack`, got a file of another kind"
    ):
        load_examples(path)
    with pytest.raises(
        CheckpointError, match="expected adversarial images written by `smoothed attack`, got a file of another kind"
    ):
        read_examples_record(path)


if __name__ == "__main__":

    def kill(done, _total):
        if done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    attack_long(Path(sys.argv[1]), kill)
