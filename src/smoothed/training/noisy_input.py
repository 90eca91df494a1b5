"""Gaussian noise on the input while training: fresh at each pass, or a few draws that attack and loss share."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.rng.rows import Rows, normal_


class NoisyInput(nn.Module):
    """`network(inputs + sigma * n)`, from images (N, C, H, W) to logits (N, K).

    Args:
        network: what sees the noisy images.
        sigma: deviation of each channel in pixel units of [0, 1].
        rows: where n comes from; it follows the images.
        draws: None for fresh noise at each call; M for M draws that the calls take in turn (Salman et al., 2019, hold
            them fixed through an attack and train on the same).
    """

    def __init__(self, network: nn.Module, sigma: Sequence[float], rows: Rows, draws: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.sigma = tuple(sigma)
        self.rows = rows
        self.draws = draws
        self._held: list[Tensor] = []
        self._calls = 0

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits of one draw."""
        return self.network(inputs + self._noise(inputs))

    def sharing(self, network: nn.Module) -> "NoisyInput":
        """The same noise before another network; the draws that are held start over."""
        other = NoisyInput(network, self.sigma, self.rows, self.draws)
        other._held = self._held
        return other

    def remember(self) -> Callable[[], None]:
        """A function that takes the noise back to where it is now."""
        calls, rows = self._calls, self.rows.remember()

        def restore() -> None:
            self._calls = calls
            rows()

        return restore

    def _noise(self, inputs: Tensor) -> Tensor:
        if self.draws is None:
            return self._draw(inputs)
        while len(self._held) < self.draws:
            self._held.append(self._draw(inputs))
        self._calls += 1
        return self._held[(self._calls - 1) % self.draws]

    def _draw(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            unit = normal_(torch.empty_like(inputs, memory_format=torch.contiguous_format), self.rows)
            return unit * torch.tensor(self.sigma, device=inputs.device, dtype=inputs.dtype).view(-1, 1, 1)
