"""Vote streams from class probabilities, and what a rule does on them: no network, no engine."""

import torch

from smoothed.smoothing.stopping import StoppingProblem, VoteState

TRIALS = 10_000


def run(stop, vote, scores):
    """The classes and the draws of each image, (N,) and (N,), by a literal loop over scores (N, M, K).

    Every draw is looked at, and what the watch says of later draws is held against what it says when they come.
    """
    images, total, _ = scores.shape
    monitor = stop.monitor(StoppingProblem(vote, total, images))
    sums, squares = torch.zeros_like(scores[:, 0]), torch.zeros_like(scores[:, 0])
    going, soonest = torch.arange(images), torch.zeros(images)
    classes, drawn = torch.zeros(images, dtype=torch.int64), torch.full((images,), total)
    for number in range(1, total):
        sums, squares = sums + scores[:, number - 1], squares + scores[:, number - 1] ** 2
        needs = monitor(VoteState(sums[going], squares[going], number))
        assert needs.shape == going.shape
        assert not ((needs == 0) & (number < soonest[going])).any()
        soonest[going] = soonest[going].maximum(number + needs)
        done = going[needs == 0]
        classes[done], drawn[done] = sums[done].argmax(1), number
        going = going[needs > 0]
        if not len(going):
            return classes, drawn
    sums = sums + scores[:, -1]
    classes[going] = sums[going].argmax(1)
    return classes, drawn


def winners(scores):
    """The classes of all draws, (N,)."""
    return scores.cumsum(1)[:, -1].argmax(1)


def counts(probabilities, images, total, generator):
    """Prediction votes (N, M, K): of N images with the same probabilities (K,), or each with its own, (N, K)."""
    probabilities = torch.as_tensor(probabilities)
    of_each = probabilities.expand(images, probabilities.shape[-1])
    drawn = torch.multinomial(of_each, total, replacement=True, generator=generator)
    return torch.nn.functional.one_hot(drawn, probabilities.shape[-1]).float()


def shares(probabilities, images, total, generator, noise=2.0):
    """Soft votes (N, M, K) whose expected scores are in the order of `probabilities` (K,), equal where they are."""
    logits = torch.tensor(probabilities).log()
    return (logits + noise * torch.randn(images, total, len(logits), generator=generator)).softmax(2)


def allowed(delta, trials=TRIALS):
    """The most wrong trials that a chance of `delta` leaves likely: three deviations above it."""
    return delta * trials + 3 * (delta * (1 - delta) * trials) ** 0.5


def state(scores, drawn):
    """What a watch of counts sees."""
    scores = torch.as_tensor(scores, dtype=torch.float32)
    return VoteState(scores, scores, drawn)
