"""Smoothed inference: a classifier that votes over noisy copies of its input (sections 3 and 3.1 of the paper).

Every draw has its own input noise and its own network noise, all of it a function of (seed, draw, image). So the same
seed gives the same votes whatever the chunk size (but for the rounding of sums in batches of another size, where two
classes are that close), and no two votes of an image share a draw.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from smoothed.acceleration.chunk_size import LARGEST, find_chunk_size
from smoothed.injection import noise_layers
from smoothed.rng.seeds import mix, seed_from
from smoothed.rng.sources import Keyed
from smoothed.smoothing.input_noise import Noise
from smoothed.smoothing.noisy_classifier import OneDraw
from smoothed.smoothing.sampling import Ballot, Drawer
from smoothed.smoothing.sharding import share_votes
from smoothed.smoothing.stopping import Stop, resolve_stop
from smoothed.smoothing.tally import Tally, log_shares
from smoothed.smoothing.votes import VOTES, Vote, resolve
from smoothed.utils.checks import check_inputs, check_positive
from smoothed.utils.distributed import ALONE, Processes
from smoothed.utils.modes import Classifier, evaluating

CHUNK_SIZE = 256
# More rows bring nothing there, but may need memory that goes back to the system after each pass.
_CHUNK_SIZE_ON_CPU = 128


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
        chunk_size: rows of one forward pass; memory grows with it, and not with `num_samples`. None is 128 on a CPU and
            256 elsewhere. "auto" finds the fastest by a short probe, once for each shape of images; calls of fewer rows
            than a probe are not worth one.
        pack_draws: whether one pass may hold several draws of an image. Not if the model has randomness of its own that
            a batch shares, for then its votes would not be independent. None packs where that is known to be right:
            in a `torch.nn.Module` without noise of `inject` on weights; say False for other shared randomness.
        stop: when `predict` may stop drawing an image: "exact" once the draws that are left can't change its class, so
            that it is always that of all of them; another rule of `smoothed.stopping`, which says what it guarantees;
            or None for all draws. Vote shares are always of all draws.
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
        chunk_size: int | Literal["auto"] | None = None,
        pack_draws: bool | None = None,
        stop: str | Stop | None = "exact",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.one_draw = OneDraw(model, noise, layer=layer)
        self.vote = vote
        self.num_samples = check_positive(num_samples, "num_samples")
        self.chunk_size: int | Literal["auto"] | None = (
            chunk_size if chunk_size is None or chunk_size == "auto" else check_positive(chunk_size, "chunk_size")
        )
        self.pack_draws = pack_draws
        self.stop = resolve_stop(stop)
        self.seed = int.from_bytes(os.urandom(7), "big") if seed is None else seed
        self._calls = 0
        self._found: dict[object, int] = {}
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
        tallies = self._count(inputs, Ballot((self.num_samples,), {"own": resolve(self.vote)}), generator)
        return tallies["own"][self.num_samples].shares.to(inputs.dtype)

    def log_probs(self, inputs: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "n k"]:
        """Logarithms of `forward`, (N, K): what tools that expect logits should call."""
        return log_shares(self(inputs, generator))

    def as_logits(self) -> "LogProbs":
        """This classifier with `log_probs` as its output: a network to hand to libraries that want logits."""
        return LogProbs(self)

    def predict(self, inputs: Tensor, generator: torch.Generator | None = None) -> Int[Tensor, " n"]:
        """The winning classes (N,), int64, in eval mode and without gradients.

        Ties go to the lowest class, as in the paper; `tally(...)[vote][M].classes("random")` splits them.
        """
        own = self.tally(inputs, votes={"own": self.vote}, stop=self.stop, generator=generator)["own"]
        return own[self.num_samples].classes()

    @torch.no_grad()
    def tally(
        self,
        inputs: Tensor,
        at: Sequence[int] | None = None,
        *,
        votes: Sequence[str] | Mapping[str, str | Vote] = tuple(VOTES),
        stop: str | Stop | None = None,
        generator: torch.Generator | None = None,
        first_image: int = 0,
        processes: Processes = ALONE,
    ) -> dict[str, dict[int, Tally]]:
        """Tallies at every M of `at` and under every vote, all read off one set of draws, in eval mode.

        Args:
            inputs: images in [0, 1], (N, C, H, W).
            at: numbers of draws, each at least 1; `num_samples` alone when None. A tally at M is of the first M draws.
            votes: names, or names of your own with the vote they stand for.
            stop: when to stop drawing an image: a rule of `smoothed.stopping`, or "exact", for which the classes at
                every M and under every vote are those of all M draws; None makes all draws. A tally that was stopped
                has the scores of the draws until then.
            generator: decides the seed of this call, which advances it by one draw; the next of this object when None.
            first_image: number of the first image, so that batches of one set can be tallied one by one.
            processes: those that share this call: each is to give the same arguments, and gets the tallies of all. They
                share the images, or all draws where there are fewer images than processes.

        Returns:
            By vote's name, by M: the tally, whose scores (N, K) are float32 and whose `num_samples` (N,) says how many
            draws each image took.

        Raises:
            ArgumentError: as `forward`; a number of draws below 1, an unknown vote, or an unknown rule.
            ProcessError: another process is gone.
        """
        counts = sorted({check_positive(count, "at") for count in (at or [self.num_samples])})
        named = votes if isinstance(votes, Mapping) else {name: name for name in votes}
        ballot = Ballot(counts, {name: resolve(vote) for name, vote in named.items()}, resolve_stop(stop))
        with evaluating(self.model), evaluating(self.one_draw.noise):
            return self._count(inputs, ballot, generator, first_image, processes)

    def _count(
        self,
        inputs: Tensor,
        ballot: Ballot,
        generator: torch.Generator | None,
        first_image: int = 0,
        processes: Processes = ALONE,
    ) -> dict[str, dict[int, Tally]]:
        inputs = check_inputs(inputs)
        seed = self._next_seed() if generator is None else seed_from(generator)
        packs = self._packs()
        rows = len(inputs) * (max(ballot.at) if packs else 1)
        drawer = Drawer(self.one_draw, seed, self._rows_of_a_pass(inputs, rows), packs, first_image)
        return share_votes(drawer, inputs, ballot, processes)

    def _rows_of_a_pass(self, inputs: Tensor, wanted: int) -> int:
        if isinstance(self.chunk_size, int):
            return self.chunk_size
        usual = _CHUNK_SIZE_ON_CPU if inputs.device.type == "cpu" else CHUNK_SIZE
        if self.chunk_size is None:
            return usual
        kind = (inputs.shape[1:], inputs.dtype, inputs.device)
        if kind not in self._found:
            if wanted < LARGEST:
                return usual
            self._found[kind] = find_chunk_size(partial(self._try_pass, inputs[:1]))
        return self._found[kind]

    @torch.no_grad()
    def _try_pass(self, image: Float[Tensor, "1 c h w"], rows: int) -> None:
        images = self.one_draw.laid_out(image.expand(rows, -1, -1, -1).contiguous())
        with evaluating(self.model), evaluating(self.one_draw.noise):
            logits = self.one_draw.keyed(images, Keyed(0, images=range(rows)))
        logits.sum().item()  # waits for a GPU

    def _packs(self) -> bool:
        """Whether a pass may hold several draws: not where they share weights, for votes must be independent."""
        if self.pack_draws is not None:
            return self.pack_draws
        return isinstance(self.model, nn.Module) and all(layer.per_row for layer in noise_layers(self.model))

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
