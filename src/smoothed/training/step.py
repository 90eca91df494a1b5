"""One optimiser step on one batch: examples -> loss -> gradients -> update, in parts if the batch is divided."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothed.injection import noise_from
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Pool, ShardSource
from smoothed.training.batch import Batch, Part, pass_seed
from smoothed.training.examples import LearnedExamples
from smoothed.training.examples.examples import GatherRows
from smoothed.training.losses import COMPARE_WITH_START
from smoothed.training.noisy_input import NoisyInput
from smoothed.training.run import Run
from smoothed.training.schedules import SCHEDULES
from smoothed.training.streams import TrainingStream
from smoothed.training.weight_perturbation import perturb_weights
from smoothed.utils.checks import output_logits
from smoothed.utils.modes import Classifier, batch_statistics


def take_step(run: Run, batch: Batch) -> Tensor:
    """Take one optimiser step on `batch`, or one for each of several passes if there is noise in the first layers.

    Returns:
        This process's contribution to the loss, a detached scalar; the mean over processes is the loss of the batch.
    """
    config, accelerator = run.config, run.accelerator
    for group in run.optimizer.param_groups:
        group["lr"] = group["lr_factor"] * config.lr * SCHEDULES[config.schedule](batch.progress)
    run.network.train()
    pieces = run.share.processes * run.share.parts
    total, correct = torch.zeros((), device=accelerator.device), torch.zeros((), device=accelerator.device)
    passes = 1 if run.hidden_noise is None else run.hidden_noise.passes(batch.progress)
    parts = dict[int, Part]()
    for index, part in enumerate(batch.parts(run.share, config.seed, config.augmentation, passes=passes)):
        number = index % run.share.parts
        parts[number] = part
        with accelerator.accumulate(run.network), noise_from(run.model, _pass_noise(run, batch, part, part.repetition)):
            add_input_noise = _input_noise(run, part)
            adversarial = _examples(run, part, add_input_noise)
            with (
                _perturbed_weights(run, part, number, add_input_noise, adversarial),
                nullcontext() if run.hidden_noise is None else run.hidden_noise.propagated(part, number),
            ):
                network = _with_norms(run, add_input_noise(run.network), adversarial)
                counting = _Counting(network, adversarial, part.labels)
                loss = _loss(run, counting if run.watches_overfitting else network, part, adversarial)
                if run.penalised:
                    loss = loss + run.penalty()
                # `backward` averages over parts and processes; the factor weights each piece by its number of images.
                accelerator.backward(loss * (len(part.labels) * pieces / part.total))
            run.examples.learn(part, adversarial, _gather_function(run, number))
            run.optimizer.step()
            run.optimizer.zero_grad()
            for layer in run.penalised:
                layer.project_()
        total += loss.detach() * (len(part.labels) / passes)
        if run.watches_overfitting:
            correct += counting.accuracy() * (len(part.labels) / passes)
    if isinstance(run.examples, LearnedExamples) and config.needs_attack:
        _train_attacker(run, run.examples, batch, parts.values(), passes)
    if run.average is not None:
        run.average.update_parameters(run.model)
    if run.watches_overfitting:
        run.accuracies.append(correct * (run.share.processes / batch.total))
    return total * (run.share.processes / batch.total)


def _pass_noise(run: Run, batch: Batch, part: Part, number: int) -> Pool:
    """The noise inside the network in pass `number` of a step on a part."""
    # The generator of the shared noise starts anew for each part: all parts on all processes use the same noise.
    shared_generator = seeded(
        pass_seed(run.config.seed, TrainingStream.NOISE, batch.step, number), run.accelerator.device
    )
    return Pool(ShardSource(shared_generator, part.row_generator), run.normals_per_pass)


def _train_attacker(run: Run, examples: LearnedExamples, batch: Batch, parts: Iterable[Part], number: int) -> None:
    """Take one ascent step of the attacker network on the loss of the updated classifier.

    Args:
        run: run of the classifier.
        examples: examples with the attacker.
        batch: batch of the step.
        parts: parts of the batch on this process.
        number: number of passes that the step has taken, which gives these their own random numbers.
    """
    gradients = list[Tensor]()
    for part in parts:
        noise = noise_from(run.model, _pass_noise(run, batch, part, number))
        with noise, run.accelerator.autocast(), _norms_of_examples(run):
            gradient = examples.gradient(_input_noise(run, part)(run.attacked), part)
        gradients.append(gradient * (len(part.labels) / part.total))
    total: Tensor = run.accelerator.reduce(torch.stack(gradients).sum(0), "sum")  # pyright: ignore[reportAssignmentType]
    examples.ascend(total)


def _input_noise(run: Run, part: Part) -> Callable[[nn.Module], nn.Module]:
    """Return a function that adds the configuration's input noise to a network; fixed draws are shared by networks."""
    config = run.config
    if config.input_sigma == config.input_sigma_normalized == 0:
        return lambda network: network
    sigma = [config.input_sigma_normalized * channel + config.input_sigma for channel in run.std]
    draws = config.eot_samples if config.input_draws == "fixed" else None
    noisy = NoisyInput(run.network, sigma, part.row_generator, draws)
    return noisy.with_network


def _examples(run: Run, part: Part, add_input_noise: Callable[[nn.Module], nn.Module]) -> Tensor:
    """The adversarial images of a part, or the clean ones if the loss needs no others."""
    if not run.config.needs_attack:
        return part.clean
    with run.accelerator.autocast(), _norms_of_examples(run):
        made = run.examples.make(add_input_noise(run.attacked), part)
    # An attack of the user's own may return the clean images, which have norms of their own.
    return made.clone() if run.auxiliary is not None and made is part.clean else made


def _norms_of_examples(run: Run) -> AbstractContextManager[None]:
    """Use the batch norms of the adversarial examples inside the block."""
    return nullcontext() if run.auxiliary is None else run.auxiliary.in_use()


def _with_norms(run: Run, network: Classifier, adversarial: Tensor) -> Classifier:
    """The network, with auxiliary batch norms for the adversarial examples if the configuration has them."""
    return network if run.auxiliary is None else run.auxiliary.routed(network, adversarial)


class _Counting:
    """A network that counts its right answers on the adversarial examples of a part, over all its passes on them."""

    def __init__(self, network: Classifier, adversarial: Tensor, labels: Tensor) -> None:
        self.network, self.adversarial, self.labels = network, adversarial, labels
        self.shares = list[Tensor]()

    def __call__(self, images: Tensor) -> Tensor:
        logits = output_logits(self.network(images))
        if images is self.adversarial:
            self.shares.append((logits.detach().argmax(1) == self.labels).float().mean())
        return logits

    def accuracy(self) -> Tensor:
        """Share of right answers, a scalar."""
        return torch.stack(self.shares).mean()


def _loss(run: Run, network: Classifier, part: Part, adversarial: Tensor) -> Tensor:
    samples = run.config.loss_samples
    compared = run.examples.reference(part) if run.config.loss in COMPARE_WITH_START else part.clean
    losses = [run.loss(network, compared, adversarial, part.labels, part.row_generator) for _ in range(samples)]
    return torch.stack(losses).mean()


def _perturbed_weights(
    run: Run, part: Part, number: int, add_input_noise: Callable[[nn.Module], nn.Module], adversarial: Tensor
) -> AbstractContextManager[None]:
    """Adversarial weight perturbation inside the block, if the configuration asks for it."""
    if run.config.weight_perturbation == 0:
        return nullcontext()

    def loss() -> Tensor:
        with batch_statistics(run.model), run.accelerator.autocast():
            return _loss(run, _with_norms(run, add_input_noise(run.model), adversarial), part, adversarial)

    def average(gradient: Tensor) -> Tensor:
        weight = len(part.labels) * run.share.processes / sum(map(len, run.share.concurrent_pieces(part.total, number)))
        return run.accelerator.reduce(gradient * weight, "mean")  # pyright: ignore[reportReturnType]

    return perturb_weights(run.weights_to_perturb, loss, run.config.weight_perturbation, average)


def _gather_function(run: Run, number: int) -> GatherRows:
    """Return a function that gathers the rows of part `number` of all processes."""
    if run.share.processes == 1:
        return lambda rows: rows
    sizes = [len(piece) for piece in run.share.concurrent_pieces(run.plan.total_per_batch, number)]

    def gather(rows: Tensor) -> Tensor:
        padded = functional.pad(rows, [0, 0] * (rows.ndim - 1) + [0, max(sizes) - len(rows)])
        local = padded.contiguous().to(run.accelerator.device)  # processes on GPUs exchange GPU tensors only
        gathered: Tensor = run.accelerator.gather(local)  # pyright: ignore[reportAssignmentType]
        return torch.cat([piece[:size] for piece, size in zip(gathered.split(max(sizes)), sizes, strict=True)])

    return gather
