"""N-FGSM examples at the start of a run, then those of its attack: most epochs cost one gradient step."""

from collections.abc import Mapping

from torch import Tensor

from smoothed.attacks import named_attack
from smoothed.training.batch import Part
from smoothed.training.examples.examples import ExampleOptions, Examples, GatherRows, linear_warmup
from smoothed.utils.modes import Classifier


class SingleStepFirst:
    """N-FGSM while less than the share `options.nfgsm_warmup` of the run is finished, then the examples `after`.

    N-FGSM is that of de Jorge et al. (2022). The state of `after` does not change before its own examples are used.
    """

    def __init__(self, options: ExampleOptions, after: Examples) -> None:
        self.options, self.after = options, after

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        if not self._is_first(part):
            return self.after.make(model, part)
        eps = linear_warmup(self.options.eps, part.progress, self.options.eps_warmup)
        return named_attack("nfgsm", eps=eps)(model, part.clean, part.labels, part.row_generator)

    def reference(self, part: Part) -> Tensor:
        """See `Examples.reference`."""
        return part.clean if self._is_first(part) else self.after.reference(part)

    def learn(self, part: Part, adversarial: Tensor, gather: GatherRows) -> None:
        """See `Examples.learn`."""
        if not self._is_first(part):
            self.after.learn(part, adversarial, gather)

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        return self.after.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`."""
        self.after.restore(state)

    def _is_first(self, part: Part) -> bool:
        return part.progress < self.options.nfgsm_warmup
