"""AdvProp (Xie et al., CVPR 2020): adversarial examples as additional images, through batch norms of their own.

Clean images pass through the network f with its main batch norms, adversarial examples x' through the same network f_a
with auxiliary ones, whose factors, shifts and statistics are separate. The examples are made with the auxiliary norms.
With the loss `adversarial`, the step minimises

    (1 - w) CE(f(x), y) + w CE(f_a(x'), y)

At w = 1/2 this is half of the paper's sum of the two. Evaluation uses the main norms. They belong to the network
itself; its checkpoints do not contain the auxiliary ones, which are kept in the saved state of the run. The auxiliary
norms start as copies of the main ones, because the paper does not state their initial values.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - base class of all batch norms

from smoothed.errors import ArgumentError
from smoothed.utils.modes import Classifier


class AuxiliaryNorms(nn.Module):
    """A network and a second set of its batch norms, as one module, so that all their parameters are trained together.

    A call runs the network with its main norms, or with the auxiliary ones inside `in_use`.

    Args:
        model: network with batch norms; it stays as it is, except inside `in_use`.

    Attributes:
        model: the network.
        auxiliary: the second set, in the order of the network's modules. Its parameters and statistics are in the
            network while they are in use.

    Raises:
        ArgumentError: the network has no batch norm.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.auxiliary = nn.ModuleList(copy.deepcopy(norm) for norm in _norms(model))
        if not self.auxiliary:
            hint = "without them, adversarial training (recipe at) is the same"
            raise ArgumentError("auxiliary_norms", "False for a network without batch norms", True, hint)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the logits (N, K) of the network."""
        return self.model(images)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Use the auxiliary norms inside the block.

        The norm modules exchange their tensors but stay the same objects, so that their modes and fused forms of the
        network (`acceleration.fusing`) remain valid.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def routed(self, network: Classifier, adversarial: Tensor) -> Classifier:
        """Return `network` as a function that uses the auxiliary norms for `adversarial` and the main ones otherwise.

        `adversarial` is recognised as the same tensor object.
        """

        def call(images: Tensor) -> Tensor:
            if images is not adversarial:
                return network(images)
            with self.in_use():
                return network(images)

        return call

    def _exchange(self) -> None:
        for main, other in zip(_norms(self.model), self.auxiliary, strict=True):
            for name in ("_parameters", "_buffers"):
                vars(main)[name], vars(other)[name] = vars(other)[name], vars(main)[name]


def _norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]
