"""Smoothed inference: a classifier that votes over noisy copies of its input (sections 3 and 3.1 of the paper).

Every draw has its own input noise and its own network noise, all of it a function of (seed, draw, image). So the same
seed gives the same votes whatever the chunk size (but for the rounding of sums in batches of another size, where two
classes are that close), and no two votes of an image share a draw.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from smoothed.checks import check_inputs, check_logits, check_positive, naming_channels
from smoothed.errors import ArgumentError
from smoothed.injection import drawing, noise_layers
from smoothed.modes import Classifier, evaluating
from smoothed.noise import Noise, ScaledNoise
from smoothed.randomness import Keyed, mix, seed_from
from smoothed.tally import Tally
from smoothed.votes import VOTES, Vote, resolve

INPUT = 0
"""The layer number of the input in the key of keyed noise; a network's own layers count from 1."""


class OneDraw(nn.Module):
    """One draw: the model on inputs with fresh noise, from images (N, C, H, W) to logits (N, K).

    This is what white-box attacks differentiate, and the paper's base classifier under noise.

    Args:
        model: any callable from images to logits.
        noise: of the input, or None for none; the network's own noise is its own.
        layer: the name of a submodule whose input is made noisy instead of the image (eq. 22).
        generator: of the input noise, on the inputs' device; torch's default one when None.
    """

    def __init__(
        self,
        model: Classifier,
        noise: Noise | None = None,
        *,
        layer: str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.noise = noise
        self.layer = layer
        self.generator = generator
        if layer is not None:
            self._find(layer)

    @property
    def is_silent(self) -> bool:
        """Whether there is no input noise to draw."""
        return self.noise is None or (isinstance(self.noise, ScaledNoise) and self.noise.is_zero)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the logits (N, K) of one draw; differentiable in the inputs."""
        return self._run(inputs, lambda noise, features: _checked(noise(features, self.generator), features))

    def keyed(self, inputs: Tensor, key: Keyed) -> Tensor:
        """The same with all noise, the network's too, taken from `key`."""

        def by_row(noise: Noise, features: Tensor) -> Tensor:
            generators = key.generators(INPUT, len(features), features.device)
            if isinstance(noise, ScaledNoise):  # the same numbers, with one scaling for all rows
                drawn = torch.empty_like(features, memory_format=torch.contiguous_format)
                for row, generator in zip(drawn, generators, strict=True):
                    noise.unit_(row, generator)
                return noise.scale_(drawn)
            rows = [noise(row, generator) for row, generator in zip(features.split(1), generators, strict=True)]
            return _checked(torch.cat(rows), features)

        with drawing(self.model, key):
            return self._run(inputs, by_row)

    def _run(self, inputs: Tensor, draw: Callable[[Noise, Tensor], Tensor]) -> Tensor:
        noise = self.noise
        if noise is None or self.is_silent:
            return self.model(inputs)
        if self.layer is None:
            return self.model(inputs + draw(noise, inputs))
        with self._noisy_layer(lambda features: draw(noise, features)):
            return self.model(inputs)

    def _find(self, layer: str) -> nn.Module:
        modules = dict(self.model.named_modules()) if isinstance(self.model, nn.Module) else {}
        if layer not in modules:
            raise ArgumentError("layer", "the name of a submodule of the model", repr(layer))
        return modules[layer]

    @contextmanager
    def _noisy_layer(self, noise: Callable[[Tensor], Tensor]) -> Iterator[None]:
        def add_noise(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            del module
            return (args[0] + noise(args[0]), *args[1:])

        handle = self._find(self.layer or "").register_forward_pre_hook(add_noise)
        try:
            yield
        finally:
            handle.remove()


class Smoothed(nn.Module):
    """A smoothed classifier, from images (N, C, H, W) in [0, 1] to vote shares (N, K).

    Args:
        model: any callable from images to logits (N, K). It is left as it was found. A network with noise inside
            (`inject`) gets a fresh draw of it for each vote.
        noise: of the input: `Gaussian(sigma)`, another of `smoothed.noise`, your own callable, or None for a vote over
            the network's own noise alone (the paper's "no noise" rows).
        vote: `prediction` (eq. 10), `weighted` (eq. 11), `soft` (eq. 13), or a function of logits, such as
            `votes.top_two(0.5)` (eq. 12).
        num_samples: draws of an image, the paper's M.
        layer: the name of a submodule whose input is made noisy instead of the image (eq. 22).
        chunk_size: rows of one forward pass; memory grows with it, and not with `num_samples`.
        pack_draws: whether one pass may hold several draws of an image. Not if the model has randomness of its own that
            a batch shares, for then its votes would not be independent. None packs where that is known to be right:
            in a `torch.nn.Module` without noise of `inject` on weights; say False for other shared randomness.
        seed: of every draw; None takes one from the operating system.

    Each call draws anew, in an order that the seed decides; `generator` makes a call repeatable by itself.

    Example:
        >>> import torch
        >>> from smoothed import Gaussian, Smoothed
        >>> model = lambda inputs: torch.stack([inputs.mean((1, 2, 3)), inputs.new_full((len(inputs),), 0.5)], 1)
        >>> smoothed = Smoothed(model, Gaussian(0.25), num_samples=100, seed=0)
        >>> smoothed.predict(torch.full((1, 1, 2, 2), 0.9))
        tensor([0])
    """

    def __init__(
        self,
        model: Classifier,
        noise: Noise | None = None,
        *,
        vote: str | Vote = "prediction",
        num_samples: int = 64,
        layer: str | None = None,
        chunk_size: int = 256,
        pack_draws: bool | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.one_draw = OneDraw(model, noise, layer=layer)
        self.vote = vote
        self.num_samples = check_positive(num_samples, "num_samples")
        self.chunk_size = check_positive(chunk_size, "chunk_size")
        self.pack_draws = pack_draws
        self.seed = int.from_bytes(os.urandom(7), "big") if seed is None else seed
        self._calls = 0
        resolve(vote)

    @property
    def model(self) -> Classifier:
        """The classifier that votes."""
        return self.one_draw.model

    def forward(self, inputs: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "n k"]:
        """Vote shares (N, K), rows summing to 1, of the inputs' device and dtype.

        With the `soft` vote they are differentiable in the inputs and in the weights; all draws are then held in
        memory. The model keeps its mode: call `eval()` first, as for any network, or use `predict`.

        Raises:
            ArgumentError: inputs that are no images in [0, 1], or a model that gives no logits (N, K).
        """
        scores = self._scores(inputs, (self.num_samples,), {"own": resolve(self.vote)}, generator)
        return Tally(scores["own"][self.num_samples], _draws(inputs, self.num_samples)).shares.to(inputs.dtype)

    def log_probs(self, inputs: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "n k"]:
        """Logarithms of `forward`, (N, K): what tools that expect logits should call."""
        shares = self(inputs, generator)
        return Tally(shares, _draws(inputs, self.num_samples)).log_probs

    def as_logits(self) -> "LogProbs":
        """This classifier with `log_probs` as its output: a network to hand to libraries that want logits."""
        return LogProbs(self)

    def predict(self, inputs: Tensor, generator: torch.Generator | None = None) -> Int[Tensor, " n"]:
        """The winning classes (N,), int64, in eval mode and without gradients.

        Ties go to the lowest class, as in the paper; `tally(...)[vote][M].classes("random")` splits them.
        """
        own = self.tally(inputs, votes={"own": self.vote}, generator=generator)["own"]
        return own[self.num_samples].classes()

    @torch.no_grad()
    def tally(
        self,
        inputs: Tensor,
        at: Sequence[int] | None = None,
        *,
        votes: Sequence[str] | Mapping[str, str | Vote] = tuple(VOTES),
        generator: torch.Generator | None = None,
        first_image: int = 0,
    ) -> dict[str, dict[int, Tally]]:
        """Tallies at every M of `at` and under every vote, all read off one set of draws, in eval mode.

        Args:
            inputs: images in [0, 1], (N, C, H, W).
            at: numbers of draws, each at least 1; `num_samples` alone when None. A tally at M is of the first M draws.
            votes: names, or names of your own with the vote they stand for.
            generator: decides the seed of this call, which advances it by one draw; the next of this object when None.
            first_image: number of the first image, so that batches of one set can be tallied one by one.

        Returns:
            By vote's name, by M: the tally, whose scores (N, K) are float32.

        Raises:
            ArgumentError: as `forward`; a number of draws below 1, or an unknown vote.
        """
        counts = sorted({check_positive(count, "at") for count in (at or [self.num_samples])})
        named = votes if isinstance(votes, Mapping) else {name: name for name in votes}
        with evaluating(self.one_draw):
            by_vote = self._scores(
                inputs, counts, {name: resolve(vote) for name, vote in named.items()}, generator, first_image
            )
        return {
            name: {count: Tally(scores, _draws(inputs, count)) for count, scores in by_count.items()}
            for name, by_count in by_vote.items()
        }

    def _scores(
        self,
        inputs: Tensor,
        at: Sequence[int],
        votes: Mapping[str, Vote],
        generator: torch.Generator | None,
        first_image: int = 0,
    ) -> dict[str, dict[int, Tensor]]:
        inputs = check_inputs(inputs)
        seed = self._next_seed() if generator is None else seed_from(generator)
        parts = []
        for start in range(0, len(inputs), self.chunk_size):
            part = inputs[start : start + self.chunk_size]
            parts.append(self._chunk_scores(part, at, votes, seed, first_image + start))
        return {vote: {count: torch.cat([part[vote][count] for part in parts]) for count in at} for vote in votes}

    def _chunk_scores(
        self, inputs: Tensor, at: Sequence[int], votes: Mapping[str, Vote], seed: int, first_image: int
    ) -> dict[str, dict[int, Tensor]]:
        """The scores of images that fit into one pass, after each number of draws in `at`."""
        total, snapshots = dict[str, Tensor](), {vote: dict[int, Tensor]() for vote in votes}
        finite = torch.ones((), dtype=torch.bool, device=inputs.device)
        images = range(first_image, first_image + len(inputs))
        for draws in self._passes(len(inputs), max(at)):
            key = Keyed(
                seed,
                [draw for draw in draws for _ in images],
                [image for _ in draws for image in images],
            )
            rows = inputs if len(draws) == 1 else inputs.repeat(len(draws), 1, 1, 1)
            with naming_channels(rows):
                logits = check_logits(self.one_draw.keyed(rows, key), len(rows))
            finite &= logits.isfinite().all()
            scores = {name: _check_scores(vote(logits), logits).chunk(len(draws)) for name, vote in votes.items()}
            for place, draw in enumerate(draws):
                for vote in votes:
                    total[vote] = total[vote] + scores[vote][place] if vote in total else scores[vote][place]
                    if draw + 1 in at:
                        snapshots[vote][draw + 1] = total[vote]
        if not finite:  # asked once a chunk: on a GPU the answer has to be waited for
            raise ArgumentError("model", "finite logits", "NaN or infinity")
        return snapshots

    def _passes(self, images: int, draws: int) -> Iterator[range]:
        """The draws of each forward pass. Draws that share a network's weights would not be independent votes."""
        packs = self.pack_draws
        if packs is None:
            packs = isinstance(self.model, nn.Module) and all(layer.per_row for layer in noise_layers(self.model))
        at_once = max(1, self.chunk_size // images) if packs else 1
        for start in range(0, draws, at_once):
            yield range(start, min(start + at_once, draws))

    def _next_seed(self) -> int:
        self._calls += 1
        return mix(self.seed, self._calls)

    def extra_repr(self) -> str:
        """The options, for printing."""
        vote = self.vote if isinstance(self.vote, str) else getattr(self.vote, "__name__", "own")
        return f"noise={self.one_draw.noise}, vote={vote}, num_samples={self.num_samples}"


class LogProbs(nn.Module):
    """A `Smoothed` as a network from images (N, C, H, W) in [0, 1] to the logarithms of its shares (N, K).

    They are logits whose softmax is the shares. It begins in the mode of `smoothed`.

    Args:
        smoothed: the classifier.
    """

    def __init__(self, smoothed: Smoothed) -> None:
        super().__init__()
        self.smoothed = smoothed
        self.training = smoothed.training

    def forward(self, inputs: Tensor) -> Float[Tensor, "n k"]:
        """See `Smoothed.log_probs`; differentiable with the `soft` vote."""
        return self.smoothed.log_probs(inputs)


def _draws(inputs: Tensor, count: int) -> Tensor:
    return torch.full((len(inputs),), count, dtype=torch.int64, device=inputs.device)


def _checked(noise: Tensor, features: Tensor) -> Tensor:
    if noise.shape != features.shape:
        raise ArgumentError("noise", f"noise of shape {tuple(features.shape)}", f"shape {tuple(noise.shape)}")
    return noise


def _check_scores(scores: Tensor, logits: Tensor) -> Tensor:
    if scores.shape != logits.shape:
        raise ArgumentError("vote", f"scores of shape {tuple(logits.shape)}", f"shape {tuple(scores.shape)}")
    return scores.to(torch.float32)
