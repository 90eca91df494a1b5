"""Gaussian noise on the training inputs: fresh at each pass, or a fixed set of draws shared by attack and loss."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.rng.rows import RowGenerator, normal_
from smoothed.utils.checks import output_logits


class NoisyInput(nn.Module):
    """`network(inputs + sigma * n)`, from images (N, C, H, W) to logits (N, K).

    Args:
        network: classifier from noisy images to logits (N, K).
        sigma: standard deviation for each channel, in pixel units of [0, 1].
        row_generator: generator of n, one stream of random numbers per image.
        draws: None for fresh noise at each call; M for M fixed draws that successive calls use in turn (Salman et al.,
            2019, fix the draws during an attack and train on the same ones).
    """

    def __init__(
        self, network: nn.Module, sigma: Sequence[float], row_generator: RowGenerator, draws: int | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.sigma = tuple(sigma)
        self.row_generator = row_generator
        self.draws = draws
        self._fixed_draws: list[Tensor] = []
        self._calls = 0

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Return the logits of one draw."""
        return output_logits(self.network(inputs + self._noise(inputs)))

    def with_network(self, network: nn.Module) -> "NoisyInput":
        """Return the same noise before another network. Fixed draws are shared and start again with the first."""
        other = NoisyInput(network, self.sigma, self.row_generator, self.draws)
        other._fixed_draws = self._fixed_draws
        return other

    def snapshot(self) -> Callable[[], None]:
        """Return a function that restores the current position in the random stream."""
        calls, restore_generator = self._calls, self.row_generator.snapshot()

        def restore() -> None:
            self._calls = calls
            restore_generator()

        return restore

    def _noise(self, inputs: Tensor) -> Tensor:
        if self.draws is None:
            return self._draw(inputs)
        while len(self._fixed_draws) < self.draws:
            self._fixed_draws.append(self._draw(inputs))
        self._calls += 1
        return self._fixed_draws[(self._calls - 1) % self.draws]

    def _draw(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            unit = normal_(torch.empty_like(inputs, memory_format=torch.contiguous_format), self.row_generator)
            return unit * torch.tensor(self.sigma, device=inputs.device, dtype=inputs.dtype).view(-1, 1, 1)
