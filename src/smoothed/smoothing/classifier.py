"""Smoothed inference: a classifier that votes over noisy copies of its input (sections 3 and 3.1 of the paper).

Every draw has its own input noise and its own network noise, both a function of (seed, draw, image). Equal seeds
therefore give equal votes at any chunk size, except where rounding of sums decides between two nearly equal classes.
No two draws of an image share noise.
"""

import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from smoothed.acceleration.chunk_size import LARGEST_CHUNK_SIZE, find_chunk_size
from smoothed.errors import ArgumentError
from smoothed.injection import noise_layers
from smoothed.models.adapt import wraps_function
from smoothed.models.normalize import normalization_std
from smoothed.rng.seeds import mix, seed_from
from smoothed.rng.sources import Keyed
from smoothed.smoothing.input_noise import Noise, ScaledNoise
from smoothed.smoothing.noisy_classifier import NoisyClassifier
from smoothed.smoothing.sampling import Sampler, VoteRequest, require_finite
from smoothed.smoothing.sharding import count_votes_sharded
from smoothed.smoothing.stopping import StoppingRule, resolve_stopping_rule
from smoothed.smoothing.tally import Tally, log_shares
from smoothed.smoothing.votes import VOTES, Vote, resolve, soft
from smoothed.utils.checks import (
    check_flag,
    check_generator,
    check_inputs,
    check_not_negative_integer,
    check_positive,
    check_seed,
)
from smoothed.utils.distributed import SINGLE_PROCESS, Processes
from smoothed.utils.modes import Classifier, eval_mode
from smoothed.utils.names import name_of

CHUNK_SIZE = 256
# Larger passes are no faster on a CPU, and their memory goes back to the system after each pass.
_CHUNK_SIZE_ON_CPU = 128
# Smallest number of draws of a vote for which stacked draws are tried. Fewer draws do not justify the trial.
_STACKED_SAMPLES = 32


# A deviation of noise on images above this is more likely to be in another unit.
LARGEST_USUAL_SIGMA = 0.5


class SigmaWarning(UserWarning):
    """A standard deviation may have been given in the wrong unit."""


class Smoothed(nn.Module):
    """A smoothed classifier, from images (N, C, H, W) in [0, 1] to vote shares (N, K).

    Args:
        model: any callable from images to logits (N, K); calls leave its mode, weights and hooks unchanged. Noise
            inside the network (`inject`) is taken afresh for each draw.
        noise: noise added to the input: `Gaussian(sigma)`, another law of `smoothed.noise`, your own callable, or None
            to vote over the network's own noise alone (the paper's "no noise" rows).
        vote: `prediction` (eq. 10), `weighted` (eq. 11), `soft` (eq. 13), or a function from logits to scores, such as
            `votes.top_two(0.5)` (eq. 12).
        num_samples: number of draws per image, the paper's M.
        layer: name of a submodule whose input receives the noise instead of the image (eq. 22); None for the image.
        chunk_size: maximum number of rows in one forward pass. Memory grows with it, not with `num_samples`. None means
            128 on a CPU and 256 elsewhere. "auto" measures the fastest size once per image shape; calls with fewer
            rows than the measurement needs use the default.
        pack_draws: whether one pass may hold several draws of an image. Use False if rows of a batch share randomness
            inside the model, because its votes would then be correlated. None packs draws if `model` is a
            `torch.nn.Module`, not made of a function by `load`, whose injected noise (`inject`), if any, differs
            between rows; None does not detect other shared randomness.
        stop: rule for `predict` to stop drawing an image early. "exact" stops once the remaining draws cannot change
            the class, so the prediction is that of all draws. Other rules are in `smoothed.stopping`, with the
            guarantee of each. None makes all draws. Vote shares always use all draws.
        seed: integer seed of all draws; None takes a random seed from the operating system.

    Raises:
        ArgumentError: an argument is out of range, or the noise on images has a deviation above 1.

    Warns:
        SigmaWarning: the deviation is above 0.5, or is that of the model's checkpoint in the paper's unit.

    Each call uses new noise, determined by the seed and the number of previous calls. Pass `generator` to make a single
    call reproducible.

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
        chunk_size: int | Literal["auto"] | None = None,
        pack_draws: bool | None = None,
        stop: str | StoppingRule | None = "exact",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if layer is None:
            check_sigma(noise, model)
        self.noisy_classifier = NoisyClassifier(model, noise, layer=layer)
        self.vote = vote
        self.num_samples = check_positive(num_samples, "num_samples")
        self.chunk_size: int | Literal["auto"] | None = (
            chunk_size if chunk_size is None or chunk_size == "auto" else check_positive(chunk_size, "chunk_size")
        )
        self.pack_draws = pack_draws if pack_draws is None else check_flag(pack_draws, "pack_draws")
        self.stop = resolve_stopping_rule(stop)
        self.seed = int.from_bytes(os.urandom(7), "big") if seed is None else check_seed(seed)
        self._calls = 0
        self._measured_chunk_sizes: dict[object, int] = {}
        resolve(vote)

    @property
    def model(self) -> Classifier:
        """The classifier whose draws vote."""
        return self.noisy_classifier.model

    def forward(self, inputs: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "n k"]:
        """Compute vote shares (N, K) with rows that sum to 1, on the inputs' device and in their dtype.

        With the `soft` vote, shares are differentiable with respect to inputs and weights, and all draws are held in
        memory. The model runs in its current mode: call `eval()` first, as for any network, or use `predict`.

        Raises:
            ArgumentError: `inputs` are not images in [0, 1], or the model does not return logits (N, K).
        """
        tallies = self._count(inputs, VoteRequest((self.num_samples,), {"own": resolve(self.vote)}), generator)
        return tallies["own"][self.num_samples].shares.to(inputs.dtype)

    def log_probs(self, inputs: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "n k"]:
        """Return logarithms of the vote shares of `forward`, (N, K), for tools that expect logits.

        Those of the `soft` vote are computed from the logits of the draws, so that values and gradients are those of
        the exact shares also where a share is too small for a float. Under other votes, shares below 5e-7, among them
        those of 0, are replaced by it.

        Raises:
            ArgumentError: as for `forward`.
        """
        if resolve(self.vote) is not soft:
            return log_shares(self(inputs, generator))
        inputs = check_inputs(inputs)
        sampler = self._seeded_sampler(inputs, self.num_samples, generator)
        logits = sampler.logits(inputs, torch.arange(len(inputs)), 0, self.num_samples)
        require_finite(logits.isfinite().all())
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return (wide.log_softmax(-1).logsumexp(0) - math.log(self.num_samples)).to(inputs.dtype)

    def as_logits(self) -> "LogProbs":
        """Return this classifier as a network that returns `log_probs`, for libraries that expect logits."""
        return LogProbs(self)

    def predict(self, inputs: Tensor, generator: torch.Generator | None = None) -> Int[Tensor, " n"]:
        """Predict the winning classes (N,), int64, in eval mode and without gradients.

        Ties go to the lowest class, as in the paper; `tally(...)[vote][M].classes("random")` breaks ties at random.
        """
        tallies = self.tally(inputs, votes={"own": self.vote}, stop=self.stop, generator=generator)["own"]
        return tallies[self.num_samples].classes()

    @torch.no_grad()
    def tally(
        self,
        inputs: Tensor,
        num_samples: int | Sequence[int] | None = None,
        *,
        votes: Sequence[str] | Mapping[str, str | Vote] = tuple(VOTES),
        stop: str | StoppingRule | None = None,
        generator: torch.Generator | None = None,
        first_image: int = 0,
        processes: Processes = SINGLE_PROCESS,
    ) -> dict[str, dict[int, Tally]]:
        """Tally votes for every M and every kind of vote from one shared set of draws, in eval mode.

        Args:
            inputs: images in [0, 1], (N, C, H, W).
            num_samples: one or several numbers of draws M, each at least 1; None for the classifier's own. The tally at
                M uses the first M draws.
            votes: names of votes, or a mapping from names of your choice to votes.
            stop: rule for ending an image's draws early, from `smoothed.stopping`. With "exact" the classes at every M
                and under every vote are those of all M draws. None makes all draws. A tally that stopped early holds
                the scores of the draws counted until then.
            generator: source of this call's seed, advanced by one draw; None uses this object's next seed.
            first_image: number of the first image in its data set. Calls on the batches of a set have the draws of one
                call on all of it if each of them also gets a new `generator` in the same state.
            processes: processes that share this call. Each must pass the same arguments and receives all tallies. They
                divide the images, or the draws if there are fewer images than processes.

        Returns:
            Tallies by name of the vote, then by M: scores (N, K) in float32 and the number of draws of each image (N,)
            in `num_samples`.

        Raises:
            ArgumentError: as for `forward`; a number of draws below 1, an unknown vote, an unknown rule, or another
                argument of the wrong type.
            ProcessError: another process has exited.
        """
        requested = self.num_samples if num_samples is None else num_samples
        sample_counts = sorted(
            {check_positive(n, "num_samples") for n in (requested if isinstance(requested, Sequence) else [requested])}
        )
        if not sample_counts:
            raise ArgumentError("num_samples", "at least one number of draws", repr(requested))
        if isinstance(votes, str) or not isinstance(votes, Iterable):
            raise ArgumentError("votes", "names of votes, or a mapping from names to votes", repr(votes))
        named_votes = votes if isinstance(votes, Mapping) else {name: name for name in votes}
        request = VoteRequest(
            sample_counts,
            {name: resolve(vote, "votes") for name, vote in named_votes.items()},
            resolve_stopping_rule(stop),
        )
        check_not_negative_integer(first_image, "first_image")
        if not isinstance(processes, Processes):
            raise ArgumentError("processes", "a smoothed.Processes", repr(processes))
        with eval_mode(self.model), eval_mode(self.noisy_classifier.noise):
            return self._count(inputs, request, generator, first_image, processes)

    def _count(
        self,
        inputs: Tensor,
        request: VoteRequest,
        generator: torch.Generator | None,
        first_image: int = 0,
        processes: Processes = SINGLE_PROCESS,
    ) -> dict[str, dict[int, Tally]]:
        inputs = check_inputs(inputs)
        sampler = self._seeded_sampler(inputs, max(request.num_samples), generator, first_image)
        return count_votes_sharded(sampler, inputs, request, processes)

    def _seeded_sampler(
        self, inputs: Tensor, num_samples: int, generator: torch.Generator | None, first_image: int = 0
    ) -> Sampler:
        """The source of the draws of one call, whose seed `generator` gives, or this object's next one."""
        check_generator(generator)
        seed = self._next_seed() if generator is None else seed_from(generator)
        return self.sampler(inputs, num_samples, seed=seed, first_image=first_image)

    def sampler(self, inputs: Tensor, num_samples: int, *, seed: int | None = None, first_image: int = 0) -> Sampler:
        """Return the source of the logits of single draws, for code that counts votes in its own order.

        Args:
            inputs: images of the size to draw, (N, C, H, W).
            num_samples: number of draws of each image, which decides whether trials of `chunk_size="auto"` and of
                stacked draws are worth their time.
            seed: seed of all noise; None uses this object's next seed, as a call of `tally` does.
            first_image: number of the first image, as for `tally`.
        """
        pack_draws = self._may_pack_draws()
        rows = len(inputs) * (num_samples if pack_draws else 1)
        seed = self._next_seed() if seed is None else seed
        return Sampler(
            self.noisy_classifier,
            seed,
            self._resolve_chunk_size(inputs, rows),
            pack_draws,
            first_image,
            stacks=num_samples >= _STACKED_SAMPLES,
        )

    def _resolve_chunk_size(self, inputs: Tensor, available_rows: int) -> int:
        if isinstance(self.chunk_size, int):
            return self.chunk_size
        default = _CHUNK_SIZE_ON_CPU if inputs.device.type == "cpu" else CHUNK_SIZE
        if self.chunk_size is None:
            return default
        kind = (inputs.shape[1:], inputs.dtype, inputs.device)
        if kind not in self._measured_chunk_sizes:
            if available_rows < LARGEST_CHUNK_SIZE:
                return default
            self._measured_chunk_sizes[kind] = find_chunk_size(partial(self._run_trial_pass, inputs[:1]))
        return self._measured_chunk_sizes[kind]

    @torch.no_grad()
    def _run_trial_pass(self, image: Float[Tensor, "1 c h w"], rows: int) -> None:
        images = self.noisy_classifier.in_memory_format(image.expand(rows, -1, -1, -1).contiguous())
        with eval_mode(self.model), eval_mode(self.noisy_classifier.noise):
            logits = self.noisy_classifier.with_key(images, Keyed(0, images=range(rows)))
        logits.sum().item()  # waits until the GPU has finished

    def _may_pack_draws(self) -> bool:
        """Whether a pass may hold several draws; draws that share noisy weights would not be independent."""
        if self.pack_draws is not None:
            return self.pack_draws
        if not isinstance(self.model, nn.Module) or any(map(wraps_function, self.model.modules())):
            return False  # a function can't be looked into
        return all(layer.per_row for layer in noise_layers(self.model))

    def _next_seed(self) -> int:
        self._calls += 1
        return mix(self.seed, self._calls)

    def extra_repr(self) -> str:
        """The options shown by `print`, with the deviation in both units where the model has a `normalize` layer."""
        noise, std = self.noisy_classifier.noise, normalization_std(self.model)
        parts = [f"noise={noise}"]
        if isinstance(noise, ScaledNoise) and not isinstance(noise.sigma, tuple) and std is not None:
            parts.append(f"sigma_normalized={fmean(noise.sigma / channel for channel in std):.4g}")
        return ", ".join([*parts, f"vote={name_of(self.vote)}", f"num_samples={self.num_samples}"])


def check_sigma(noise: Noise | None, model: object) -> None:
    """Check that the deviation of noise on images makes sense in pixel units of [0, 1].

    Raises:
        ArgumentError: a deviation is above 1.

    Warns:
        SigmaWarning: a deviation is above 0.5, or it is the deviation that the model's checkpoint states in the paper's
            unit.
    """
    if not isinstance(noise, ScaledNoise):
        return
    largest = max(noise.sigma) if isinstance(noise.sigma, tuple) else noise.sigma
    units = "sigma is in pixel units of [0, 1]; for the paper's unit use `Gaussian.normalized(sigma, std)`"
    if largest > 1:
        raise ArgumentError("sigma", "a standard deviation of at most 1", f"{largest:g}", units)
    if largest > LARGEST_USUAL_SIGMA:
        message = f"sigma: {largest:g} is more than half of the range of a pixel; {units}"
        warnings.warn(message, SigmaWarning, stacklevel=3)
    header = getattr(model, "checkpoint_header", None) or {}
    smoothing = header.get("smoothing") or {}
    normalized, std = smoothing.get("sigma_normalized"), normalization_std(model)
    if normalized and std and not isinstance(noise.sigma, tuple) and math.isclose(noise.sigma, normalized):
        pixels = fmean(normalized * channel for channel in std)
        message = (
            f"sigma: {noise.sigma:g} in pixel units is the number that the checkpoint states in the paper's unit, "
            f"which is {pixels:.4g} in pixel units; {units}"
        )
        warnings.warn(message, SigmaWarning, stacklevel=3)


class LogProbs(nn.Module):
    """A `Smoothed` classifier as a network from images (N, C, H, W) in [0, 1] to log vote shares (N, K).

    The outputs are valid logits: their softmax is the vote shares. Under votes other than `soft`, shares below 5e-7 are
    replaced by it before. The mode (train or eval) is initially that of `smoothed`.

    Args:
        smoothed: the classifier whose vote shares are returned.
    """

    def __init__(self, smoothed: Smoothed) -> None:
        super().__init__()
        if not isinstance(smoothed, Smoothed):
            raise ArgumentError("smoothed", "a Smoothed classifier", f"an object of type {type(smoothed).__name__}")
        self.smoothed = smoothed
        self.training = smoothed.training

    def forward(self, inputs: Tensor) -> Float[Tensor, "n k"]:
        """Return `Smoothed.log_probs` of the inputs, (N, K); differentiable with the `soft` vote."""
        return self.smoothed.log_probs(inputs)
