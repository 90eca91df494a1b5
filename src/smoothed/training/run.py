"""A run in memory: the network, its optimizer, its average, its examples, and how far they have come."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from smoothed.acceleration.fusing import Fused, fuse_or_keep
from smoothed.attacks import Attack
from smoothed.data.images import Images
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection import noise_layers, noiseless, weight_normals
from smoothed.training.averaging import average_weights
from smoothed.training.batch import Plan, Share
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import Attacked, Examples, make_examples
from smoothed.training.initial import initial_network
from smoothed.training.losses import LOSSES
from smoothed.training.provenance import provenance
from smoothed.training.weight_perturbation import perturbed_weights
from smoothed.utils.modes import evaluating


class Run:
    """What a step changes.

    Attributes:
        model: the bare network; `network` is what Accelerate made of it.
        attacked: the network as attacks see it: fused where that is possible, and `fallback` says why where it is not.
        result: the network to evaluate and keep: the average where there is one.
        losses: of this epoch's steps, on this process.
    """

    def __init__(
        self,
        config: TrainingConfig,
        train_set: Images,
        accelerator: Accelerator,
        *,
        network: nn.Module | None = None,
        attack: Attack | None = None,
    ) -> None:
        start = initial_network(config, train_set, network)
        model, self.injection, self.parent, self.std = start.model, start.injection, start.parent, start.std
        model.to(accelerator.device)
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing from torch's stubs
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.average = average_weights(model, config.average) if config.average else None
        self.names = [name for name, _ in model.named_parameters()]
        optimizer = torch.optim.SGD(
            _parameter_groups(model, config.noise_lr),
            config.lr,
            config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
        with warnings.catch_warnings():
            # Of a setting that some torch releases rename, others do not know by its new name.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            self.network, self.optimizer = accelerator.prepare(model, optimizer)
        self.model: nn.Module = model
        self.attacked, reason = fuse_or_keep(model)
        self.fallback = None if reason is None else f"attacks run on the network as it is ({reason})"
        self.config, self.accelerator, self.classes = config, accelerator, train_set.classes
        self.plan = Plan(len(train_set), config.batch_size, config.epochs, config.replays, config.seed)
        self.share = Share(accelerator.process_index, accelerator.num_processes, config.accumulation)
        self.share.cuts(self.plan.total_per_batch)  # refuses a batch too small for so many parts, now
        self.loss = LOSSES[config.loss](config)
        self.examples: Examples = make_examples(config, len(train_set))
        if attack is not None:
            self.examples = Attacked(config, len(train_set), attack)
        self.moved = perturbed_weights(model) if config.weight_perturbation > 0 else []
        self.normals_per_pass = weight_normals(model)
        self.provenance = {**provenance(accelerator.device), "precision": accelerator.mixed_precision}
        self.provenance["processes"] = accelerator.num_processes
        self.step, self.seconds = 0, 0.0
        self.kept: dict[str, dict[str, float]] = {}
        self.losses: list[Tensor] = []

    def compile_for(self, images: Tensor) -> None:
        """Let torch.compile make the network that attacks see, for `images`; where it can't, `fallback` says why."""
        if not isinstance(self.attacked, Fused):
            return
        try:
            # Noise is switched off, so that trying it draws nothing.
            with evaluating(self.attacked), noiseless(self.model), self.accelerator.autocast():
                self.attacked.compile_for(images)
        except ArgumentError as error:
            self.fallback = f"attacks run uncompiled ({error})"

    @property
    def result(self) -> nn.Module:
        """The network to evaluate and keep: the average where there is one."""
        return self.model if self.average is None else self.average.module

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """The state as tensors."""
        momentum = {
            name: self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in zip(self.names, self.model.parameters(), strict=True)
            if self.optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        groups = {"weights": dict(self.model.state_dict()), "momentum": momentum}
        if self.average is not None:
            groups["average"] = dict(self.average.state_dict())
        return {**groups, "examples": dict(self.examples.state())}

    def meta(self, losses: list[float]) -> dict[str, Any]:
        """The state that is no tensor; `losses` are those of the epoch so far, over all processes."""
        return {"config": self.config.to_json(), "seconds": self.seconds, "kept": self.kept, "losses": losses}

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> None:
        """Take up the state that `groups` and `meta` gave, from however many processes.

        Raises:
            CheckpointError: it is another configuration's.
        """
        changed = {k: v for k, v in self.config.to_json().items() if meta["config"].get(k) != v}
        if changed:
            name = next(iter(changed))
            raise CheckpointError(
                f"out: the run there has {name} = {meta['config'].get(name)!r}, this one {changed[name]!r}; "
                "give the same options to go on, or another folder to start anew"
            )
        self.model.load_state_dict(dict(groups["weights"]))
        if self.average is not None:
            self.average.load_state_dict(dict(groups["average"]))
        parameters = dict(zip(self.names, self.model.parameters(), strict=True))
        for name, buffer in groups["momentum"].items():
            target = parameters[name]
            self.optimizer.state[target]["momentum_buffer"] = torch.empty_like(target).copy_(buffer)
        self.examples.restore(groups["examples"])
        self.step, self.seconds, self.kept = meta["step"], meta["seconds"], meta["kept"]
        self.losses = [torch.tensor(loss, device=self.accelerator.device) for loss in meta["losses"]]


def _parameter_groups(model: nn.Module, noise_lr: float) -> list[dict[str, Any]]:
    """The weights and the noise strengths, each with the factor on its learning rate."""
    noise = {id(parameter) for layer in noise_layers(model) for parameter in layer.parameters()}
    weights = [parameter for parameter in model.parameters() if id(parameter) not in noise]
    strengths = [parameter for parameter in model.parameters() if id(parameter) in noise]
    groups: list[dict[str, Any]] = [{"params": weights, "lr_factor": 1.0}]
    return [*groups, {"params": strengths, "lr_factor": noise_lr}] if strengths else groups
