"""Outcomes of several batches and runs, in their places."""

import torch

import known
from smoothed.attacks import pgd
from smoothed.evaluation.correctness import BATCH, Setting, attack_noisy_classifier, measure_outcomes
from smoothed.evaluation.resume import ResumeFolder
from smoothed.evaluation.streams import BatchStream
from smoothed.rng.seeds import mix, seeded
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.input_noise import Gaussian


def attack(model, inputs, labels, generator):
    return pgd(model, inputs, labels, eps=0.11, steps=7, generator=generator)


def test_batches_and_runs_are_in_their_places():
    values = torch.arange(2 * BATCH + 1) % 256
    data, seen = known.pixels(*values.tolist()), []
    settings = [Setting(Gaussian(sigma), {"mine": "soft"}, (1, 3)) for sigma in (0.0, 0.3)]
    noiseless, noisy = measure_outcomes(
        known.Threshold(),
        data,
        settings,
        attack,
        runs=2,
        seed=7,
        precision="float32",
        resume=ResumeFolder(None, {}),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert noiseless.shape == noisy.shape == (2, 1, 2, 2, 2 * BATCH + 1)
    assert seen == [(done, 12) for done in range(1, 13)]
    for count in range(2):
        for run in range(2):
            assert torch.equal(noiseless[0, 0, count, run], values / 255 > 0.5)
            assert torch.equal(noiseless[1, 0, count, run], values / 255 - 0.11 > 0.5)
    assert not torch.equal(noisy[0, 0, 0, 0], noisy[0, 0, 0, 1])  # each run draws anew
    # One batch of one run on its own, the last one.
    key = mix(7, 1, 2)
    ((inputs, labels),) = data.subset(slice(2 * BATCH, None)).batches(BATCH)
    seed = mix(key, BatchStream.ATTACK)
    attacked = attack_noisy_classifier(known.Threshold(), Gaussian(0.3), attack, inputs, labels, seed=seed)
    alone = Smoothed(known.Threshold(), Gaussian(0.3), vote="soft", num_samples=3)
    right = alone.predict(attacked, seeded(mix(key, BatchStream.ATTACKED_VOTES))) == labels
    assert torch.equal(noisy[1, 0, 1, 1, 2 * BATCH :], right)
