"""Validation after each epoch: clean and robust accuracy on held-out images, computed by all processes together."""

import torch

from smoothed.attacks import named_attack
from smoothed.data.images import Images
from smoothed.evaluation.correctness import count_correct
from smoothed.rng.seeds import mix
from smoothed.training.run import Run
from smoothed.training.streams import TrainingStream


def validate(run: Run, data: Images) -> tuple[float, float]:
    """Return clean accuracy on `data` and accuracy under PGD-7 on its first images, of a single draw, in [0, 1]."""
    config, accelerator = run.config, run.accelerator
    attacked = data.first(min(len(data), config.validation_attack_images))
    pgd = named_attack("pgd", eps=config.eps, norm="l2" if config.norm == "l2" else "linf")
    correct = []
    with accelerator.autocast():
        for stream, (images, attack) in enumerate(((data, None), (attacked, pgd))):
            seed = mix(config.seed, TrainingStream.VALIDATION, stream)
            share = (accelerator.process_index, accelerator.num_processes)
            correct.append(count_correct(run.evaluated_model, images, attack=attack, seed=seed, share=share))
    counts = torch.tensor(correct, device=accelerator.device, dtype=torch.float64)
    clean, robust = accelerator.reduce(counts, "sum").tolist()  # pyright: ignore[reportAttributeAccessIssue]
    return clean / len(data), robust / len(attacked)
