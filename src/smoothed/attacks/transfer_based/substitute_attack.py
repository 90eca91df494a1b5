"""The substitute attack: a network learns from the model's answers, and its adversarial examples attack the model."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.attacks.attack import Attack
from smoothed.attacks.query_based.queries import Queries
from smoothed.attacks.transfer_based.substitute import train_substitute
from smoothed.attacks.transfer_based.transfer import transfer
from smoothed.rng.rows import Randomness, uniform_
from smoothed.rng.seeds import seeded
from smoothed.utils.checks import check_callable, check_generator, check_inputs, check_labels
from smoothed.utils.modes import Classifier


def substitute_attack(
    model: Classifier | Queries,
    inputs: Tensor,
    labels: Tensor,
    *,
    attack: Attack,
    substitute: nn.Module | None = None,
    rounds: int = 6,
    epochs: int = 10,
    eot_samples: int = 1,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs of a substitute for `model` (Papernot et al., ASIA CCS 2017).

    The model is queried with the attacked images and synthetic versions of them: with 2^(rounds - 1) versions of each
    image, including itself, or as many as `Queries` allows. `train_substitute` learns from the answers, and `attack` is
    run on the result. The attack uses no gradient of the model and does not try its examples on the model. All images
    of a batch train one substitute, so the result for an image depends on the batch, and small batches give weak
    substitutes.

    Args:
        model: any callable from images to logits (N, K), or `Queries` of logits, shares or labels.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `attack` is targeted. The substitute is not trained on them.
        attack: attack to run on the substitute; it sets the radius of the perturbation.
        substitute: untrained network to copy and train (see `train_substitute`); None for a small convolutional
            network.
        rounds: number of rounds of queries and training; each one doubles the number of images.
        epochs: number of epochs of training per round.
        eot_samples: number of answers averaged for each queried image; each counts as a query.
        generator: source of random numbers, on the inputs' device; None for torch's default generator.

    Returns:
        Adversarial inputs, (N, C, H, W), in the ball of `attack`.

    Raises:
        ArgumentError: as for `train_substitute`, or labels are invalid (see `check_labels`).
    """
    check_callable(attack, "attack")
    check_generator(generator)
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    seed = int(uniform_(torch.empty(1, dtype=torch.float64, device=inputs.device), 0, 2**52, generator))
    trained = train_substitute(
        model,
        inputs,
        substitute,
        rounds=rounds,
        epochs=epochs,
        eot_samples=eot_samples,
        generator=seeded(seed),
    )
    return transfer(model, inputs, labels, sources=trained, attack=attack, generator=generator)
