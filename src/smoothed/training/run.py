"""A training run in memory: the network, its optimiser, its weight average, its examples, and its progress."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from smoothed.acceleration.fusing import Fused, fuse_or_keep
from smoothed.attacks import Attack
from smoothed.attacks.own import as_attack
from smoothed.checkpoint import CUSTOM
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.evaluation.provenance import provenance
from smoothed.injection import count_weight_normals, noise_layers, noiseless, penalties
from smoothed.training.auxiliary_norms import AuxiliaryNorms
from smoothed.training.averaging import average_weights
from smoothed.training.batch import Plan, Share
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import SINGLE_STEP, AttackedExamples, Examples, SingleStepFirst, make_examples
from smoothed.training.hidden_noise import HiddenNoise
from smoothed.training.initial import InitialNetwork
from smoothed.training.losses import TRAINING_LOSSES
from smoothed.training.weight_perturbation import weights_to_perturb
from smoothed.utils.modes import eval_mode


class Run:
    """State of a run that the training steps change.

    Attributes:
        model: network without Accelerate's wrapper.
        auxiliary: the batch norms of the adversarial examples, with the network; None if they share those of the clean
            images.
        network: network as Accelerate wraps it for training, with the auxiliary norms if there are any.
        attacked: network that attacks use: a fused form of `model` if it can be fused, else `model`.
        fallback: reason why attacks cannot use a fused or compiled network; None if they can.
        evaluated_model: network to evaluate and save: the weight average if there is one, else `model`.
        step: number of finished steps.
        seconds: duration of the run, over all calls of `train`.
        hidden_noise: adversarial noise in the first layers; None for none.
        penalised: noise layers that add a term to the loss.
        watches_overfitting: whether the accuracy on the training examples is recorded, and compared with that under
            PGD.
        notes: what differs from the request or from the checkpoint that the network comes from, one sentence each.
        kept: epoch number and accuracies of each saved checkpoint, by its name.
        losses: losses of this epoch's steps on this process.
        accuracies: accuracies of this epoch's steps on this process on the training examples of a single-step attack;
            empty for other recipes.
    """

    def __init__(
        self,
        config: TrainingConfig,
        start: InitialNetwork,
        images: int,
        accelerator: Accelerator,
        *,
        attack: Attack | None = None,
    ) -> None:
        """Create a run of `config` from the network `start` on a number of training `images`."""
        _check_own_attack(config, attack)
        model, self.injection, self.parent, self.std = start.model, start.injection, start.parent, start.std
        self.notes = start.notes
        model.to(accelerator.device)
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing from torch's stubs
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.average = average_weights(model, config.average) if config.average else None
        self.auxiliary = AuxiliaryNorms(model) if config.auxiliary_norms else None
        self.trained: nn.Module = model if self.auxiliary is None else self.auxiliary
        self.parameter_names = [name for name, _ in self.trained.named_parameters()]
        optimizer = torch.optim.SGD(
            _parameter_groups(self.trained, config.noise_lr),
            config.lr,
            config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
        with warnings.catch_warnings():
            # `broadcast_buffers` has a new name in some releases of torch, which the others reject.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            self.network, self.optimizer = accelerator.prepare(self.trained, optimizer)
        self.model: nn.Module = model
        self.attacked, reason = fuse_or_keep(model)
        self.fallback = None if reason is None else f"attacks use the network without fusing ({reason})"
        self.config, self.accelerator, self.classes = config, accelerator, start.classes
        self.plan = Plan(images, config.batch_size, config.epochs, config.replays, config.seed)
        self.share = Share(accelerator.process_index, accelerator.num_processes, config.accumulation)
        self.share.pieces(self.plan.total_per_batch)  # raises before the run starts if the batch is too small
        self.loss = TRAINING_LOSSES[config.loss](config)
        self.examples: Examples = (
            make_examples(config, images) if attack is None else AttackedExamples(config, images, as_attack(attack))
        )
        if config.needs_attack and config.nfgsm_warmup > 0:
            self.examples = SingleStepFirst(config, self.examples)
        self.weights_to_perturb = weights_to_perturb(model) if config.weight_perturbation > 0 else []
        self.hidden_noise = HiddenNoise(model, config) if config.hidden_noise > 0 else None
        self.penalised = list(penalties(model))
        # The mixture of clean and attacked images of `bernoulli` has no accuracy on the examples alone.
        single_step = config.needs_attack and (config.attack in SINGLE_STEP or config.nfgsm_warmup > 0)
        self.watches_overfitting = single_step and config.loss != "bernoulli"
        self.normals_per_pass = count_weight_normals(model)
        self.provenance = {**provenance(accelerator.device), "precision": accelerator.mixed_precision}
        self.provenance["processes"] = accelerator.num_processes
        self.step, self.seconds = 0, 0.0
        self.kept: dict[str, dict[str, float]] = {}
        self.losses: list[Tensor] = []
        self.accuracies: list[Tensor] = []

    def penalty(self) -> Tensor:
        """Return the sum of the noise layers' loss terms, times `kl_weight`, per training image, a scalar."""
        return self.config.kl_weight / self.plan.images * torch.stack(list(penalties(self.model).values())).sum()

    def compile_for(self, images: Tensor) -> None:
        """Compile the attacked network for inputs like `images`; on failure, `fallback` receives the reason."""
        if not isinstance(self.attacked, Fused):
            return
        try:
            # Without noise, the trial pass of the compilation draws no random numbers.
            with eval_mode(self.attacked), noiseless(self.model), self.accelerator.autocast():
                self.attacked.compile_for(images)
        except ArgumentError as error:
            self.fallback = f"attacks use the network without compiling ({error})"

    @property
    def evaluated_model(self) -> nn.Module:
        """The network to evaluate and save: the weight average if there is one."""
        return self.model if self.average is None else self.average.module

    def tensor_groups(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of the state: weights, auxiliary norms, momentum, weight average, and the examples'."""
        momentum = {
            name: self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in zip(self.parameter_names, self.trained.parameters(), strict=True)
            if self.optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        groups = {"weights": dict(self.model.state_dict()), "momentum": momentum}
        if self.average is not None:
            groups["average"] = dict(self.average.state_dict())
        if self.auxiliary is not None:
            groups["auxiliary"] = dict(self.auxiliary.auxiliary.state_dict())
        return {**groups, "examples": dict(self.examples.state())}

    def meta(self, losses: list[float], accuracies: list[float]) -> dict[str, Any]:
        """Return the rest of the state as JSON values; `losses` and `accuracies` are averages over all processes."""
        of_epoch = {"losses": losses, "accuracies": accuracies}
        return {"config": self.config.to_json(), "seconds": self.seconds, "kept": self.kept, **of_epoch}

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> None:
        """Restore a state of `tensor_groups` and `meta`, from a run with any number of processes.

        Raises:
            CheckpointError: the state belongs to another configuration.
        """
        # A state of an older version lacks the newer settings, which had their defaults.
        saved = {**TrainingConfig().to_json(), **meta["config"]}
        changed = {k: v for k, v in self.config.to_json().items() if saved[k] != v}
        if changed:
            name = next(iter(changed))
            raise CheckpointError(
                f"out: expected {name} {saved[name]!r} as in the run in this folder, "
                f"got {changed[name]!r}; pass the same options to continue it, or another folder for a new run"
            )
        self.model.load_state_dict(dict(groups["weights"]))
        if self.average is not None:
            self.average.load_state_dict(dict(groups["average"]))
        if self.auxiliary is not None:
            self.auxiliary.auxiliary.load_state_dict(dict(groups["auxiliary"]))
        parameters = dict(zip(self.parameter_names, self.trained.parameters(), strict=True))
        for name, buffer in groups["momentum"].items():
            target = parameters[name]
            self.optimizer.state[target]["momentum_buffer"] = torch.empty_like(target).copy_(buffer)
        self.examples.restore(groups["examples"])
        self.step, self.seconds, self.kept = meta["step"], meta["seconds"], meta["kept"]
        self.losses, self.accuracies = (
            [torch.tensor(value, device=self.accelerator.device) for value in meta.get(name, [])]
            for name in ("losses", "accuracies")
        )


def _check_own_attack(config: TrainingConfig, attack: Attack | None) -> None:
    """Raise `ArgumentError` unless the configuration uses the user's own attack, and has one if it needs one."""
    if attack is None and config.attack == CUSTOM:
        hint = "pass attack= to smoothed.train, or --attack package.module:function to smoothed train"
        raise ArgumentError("attack", f"an attack of your own with attack {CUSTOM}", "none", hint)
    if attack is not None and not config.needs_attack:
        hint = 'use recipe="at", or an adversarial_weight above 0'
        raise ArgumentError("attack", "a recipe that trains on attacked images", f"recipe {config.recipe}", hint)


def _parameter_groups(model: nn.Module, noise_lr: float) -> list[dict[str, Any]]:
    """SGD's parameter groups: weights, noise strengths, and those without decay; each with its learning-rate factor."""
    decays = {id(parameter): layer.decays for layer in noise_layers(model) for parameter in layer.parameters()}
    weights = [parameter for parameter in model.parameters() if id(parameter) not in decays]
    groups: list[dict[str, Any]] = [{"params": weights, "lr_factor": 1.0}]
    for decayed, options in ((True, {}), (False, {"weight_decay": 0.0})):
        strengths = [parameter for parameter in model.parameters() if decays.get(id(parameter)) is decayed]
        if strengths:
            groups.append({"params": strengths, "lr_factor": noise_lr, **options})
    return groups
