"""An attack by imitation: a substitute learns from a model's answers, and what fools it is tried on the model."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.attacks.attack import Attack
from smoothed.attacks.query_based.queries import Queries
from smoothed.attacks.transfer_based.substitute import train_substitute
from smoothed.attacks.transfer_based.transfer import transfer
from smoothed.rng.rows import Randomness, uniform_
from smoothed.rng.seeds import seeded
from smoothed.utils.checks import check_inputs, check_labels
from smoothed.utils.modes import Classifier


def imitation(
    model: Classifier | Queries,
    inputs: Tensor,
    labels: Tensor,
    *,
    attack: Attack,
    substitute: nn.Module | None = None,
    rounds: int = 6,
    epochs: int = 10,
    num_samples: int = 1,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs of a substitute for `model` (Papernot et al., ASIA CCS 2017).

    The model is asked about the attacked images and about versions of them, 2^(rounds - 1) of each with the image
    itself, or as many as `Queries` allows; `train_substitute` learns from the answers, and `attack` is run on what it
    made. No gradient of the model is taken, and no example is tried on it. All images of a batch teach one substitute,
    so what happens to one depends on the others: a batch of a few teaches little.

    Args:
        model: any callable from images to logits (N, K), or `Queries` of logits, shares or labels.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach, if `attack` is targeted. The substitute learns none of them.
        attack: run on the substitute; it sets the budget.
        substitute: see `train_substitute`; a small network if None.
        rounds: likewise.
        epochs: likewise.
        num_samples: answers averaged for each image asked about; each is a query.
        generator: on the inputs' device; torch's default one when None.

    Returns:
        Adversarial inputs of the shape of `inputs`.

    Raises:
        ArgumentError: as `train_substitute`; labels as `check_labels` refuses them.
    """
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    seed = int(uniform_(torch.empty(1, dtype=torch.float64, device=inputs.device), 0, 2**52, generator))
    learned = train_substitute(
        model,
        inputs,
        substitute,
        rounds=rounds,
        epochs=epochs,
        num_samples=num_samples,
        generator=seeded(seed),
    )
    return transfer(model, inputs, labels, sources=learned, attack=attack, generator=generator)
