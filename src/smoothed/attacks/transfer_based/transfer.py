"""Black-box attacks by transfer: what fools a source fools others (Liu et al., ICLR 2017; the paper's Table 3a)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.attack import Attack
from smoothed.attacks.averages import AverageName
from smoothed.attacks.losses import margin
from smoothed.attacks.query_based.queries import Queries, queries_of
from smoothed.attacks.transfer_based.ensemble import Ensemble
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_classes, check_inputs, check_labels
from smoothed.utils.modes import Classifier


def transfer(
    model: Classifier | Queries,
    inputs: Tensor,
    labels: Tensor,
    *,
    sources: Classifier | Sequence[Classifier],
    attack: Attack,
    average: AverageName = "probabilities",
    choose: bool = False,
    targeted: bool = False,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs of the sources, for a target that was not there when they were made.

    Several sources are attacked as one, their `Ensemble`, and the target is not asked at all. With `choose` it is asked
    once about each candidate: the ensemble's example and one of each source alone. An image keeps the one of the
    largest margin in the target's answers, and the ensemble's where they tie or no query is left. With its sources and
    its attack settled, as by `functools.partial`, this is an `Attack` itself.

    Args:
        model: the target: any callable from images to logits (N, K), or `Queries` of logits, shares or labels.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach, if `attack` is targeted.
        sources: one classifier or several, with the gradients that `attack` needs. For the paper's smoothed source a
            random network or a `OneDraw`, with an attack on an expectation over its draws; else the network under
            `noiseless`.
        attack: run on the source; it sets the budget.
        average: of several sources, see `Ensemble`.
        choose: whether the target's answers choose among several sources. Costs an attack and, within what `Queries`
            allows, a query an image for each source, and one of both for the ensemble. One source costs no query.
        targeted: whether `attack` is after `labels`; only `choose` has to know.
        generator: handed to `attack`, of the ensemble first and then of each source.

    Returns:
        Adversarial inputs of the shape of `inputs`.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, no sources, sources that
            disagree on the number of classes, a target without logits.
    """
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    models = tuple(sources) if isinstance(sources, Sequence) else (sources,)
    if not models:
        raise ArgumentError("sources", "at least one classifier", "none")
    candidates = models if len(models) == 1 else (Ensemble(models, average=average), *models)

    def run(source: Classifier) -> Tensor:
        return attack(source, inputs, labels, generator=generator)

    if not choose or len(candidates) == 1:
        return run(candidates[0])
    queries, sign = queries_of(model, inputs), -1.0 if targeted else 1.0
    best, highest = inputs, inputs.new_full((len(inputs),), -torch.inf)
    for number, source in enumerate(candidates):
        images = run(source)
        values = _values(queries, images, labels, sign).to(highest)
        better = (values > highest) | (number == 0)
        best, highest = torch.where(better.view(-1, 1, 1, 1), images, best), torch.where(better, values, highest)
    return best


def _values(queries: Queries, images: Tensor, labels: Tensor, sign: float) -> Float[Tensor, " n"]:
    """How wrong the target is about each image; minus infinity where no query is left."""
    rows = torch.arange(len(images), device=images.device)
    rows = rows[queries.affords(rows)]
    values = torch.full((len(images),), -torch.inf, device=images.device)
    if len(rows):
        answers = queries.ask(images[rows], rows)
        values[rows] = sign * margin(answers, check_classes(labels, answers.shape[1])[rows]).to(values)
    return values
