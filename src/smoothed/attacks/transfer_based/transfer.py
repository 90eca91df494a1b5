"""Black-box attacks by transfer of adversarial examples (Liu et al., ICLR 2017; the paper's Table 3a)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.attack import Attack
from smoothed.attacks.averages import AverageName, named_average
from smoothed.attacks.losses import margin
from smoothed.attacks.query_based.queries import Queries, as_queries
from smoothed.attacks.transfer_based.ensemble import Ensemble
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_callable, check_classes, check_flag, check_generator, check_inputs, check_labels
from smoothed.utils.modes import Classifier


def transfer(
    model: Classifier | Queries,
    inputs: Tensor,
    labels: Tensor,
    *,
    sources: Classifier | Sequence[Classifier],
    attack: Attack,
    average: AverageName = "probabilities",
    query_target: bool = False,
    targeted: bool = False,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs of the source networks, for use against a target.

    Several sources are attacked together as an `Ensemble`, without a query to the target. With `query_target`, the
    target is queried once with each candidate: the ensemble's example, and one example of each source alone. For each
    image, the candidate with the largest margin in the target's answers is kept, or the ensemble's if margins are equal
    or no queries are left. With `sources` and `attack` set, as by `functools.partial`, this function is an `Attack`.

    Args:
        model: target model: any callable from images to logits (N, K), or `Queries` of logits, shares or labels.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `attack` is targeted.
        sources: one classifier or several, with the gradients that `attack` needs. The paper's smoothed source is a
            random network or a `NoisyClassifier`, attacked by an expectation over its draws; the unsmoothed source is
            the network inside `noiseless`.
        attack: attack to run on the source; it sets the radius of the perturbation.
        average: average of the ensemble of several sources (see `Ensemble`).
        query_target: whether to choose among several sources by the target's answers. It costs one attack, and one
            query per image as far as `Queries` allows, for the ensemble and for each source. A single source needs no
            query.
        targeted: whether `attack` is targeted; used only with `query_target`.
        generator: passed to `attack`, for the ensemble first and then for each source.

    Returns:
        Adversarial inputs, (N, C, H, W), in the ball of `attack`.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), there are no sources, the
            sources disagree on the number of classes, or the target does not return logits.
    """
    if not isinstance(model, Queries):
        check_callable(model, "model")
    check_callable(attack, "attack")
    check_flag(query_target, "query_target")
    check_flag(targeted, "targeted")
    check_generator(generator)
    named_average(average)  # raises on an unknown one, even where there is nothing to average
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    models = tuple(sources) if isinstance(sources, Sequence) else (sources,)
    if not models:
        raise ArgumentError("sources", "at least one classifier", "none")
    for source in models:
        check_callable(source, "sources")
    candidates = models if len(models) == 1 else (Ensemble(models, average=average), *models)

    def attack_source(source: Classifier) -> Tensor:
        return attack(source, inputs, labels, generator=generator)

    if not query_target or len(candidates) == 1:
        return attack_source(candidates[0])
    queries, sign = as_queries(model, inputs), -1.0 if targeted else 1.0
    best, highest = inputs, inputs.new_full((len(inputs),), -torch.inf)
    for index, source in enumerate(candidates):
        images = attack_source(source)
        values = _answer_margins(queries, images, labels, sign).to(highest)
        better = (values > highest) | (index == 0)
        best, highest = torch.where(better.view(-1, 1, 1, 1), images, best), torch.where(better, values, highest)
    return best


def _answer_margins(queries: Queries, images: Tensor, labels: Tensor, sign: float) -> Float[Tensor, " n"]:
    """Return the margin of each image in the target's answers, (N,), or minus infinity if no query is left."""
    rows = torch.arange(len(images), device=images.device)
    rows = rows[queries.affords(rows)]
    values = torch.full((len(images),), -torch.inf, device=images.device)
    if len(rows):
        answers = queries.ask(images[rows], rows)
        values[rows] = sign * margin(answers, check_classes(labels, answers.shape[1])[rows]).to(values)
    return values
