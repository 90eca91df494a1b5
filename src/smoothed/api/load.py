"""Load any classifier: by a name, from files, from a function of the user's own code, or as an object."""

import copy
import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from smoothed import checkpoint
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.models.adapt import ModelAdapter, Outputs, Statistics, device_of, float_dtype
from smoothed.utils.checks import check_choice
from smoothed.utils.files import check_path
from smoothed.utils.imports import current_folder_importable, error_summary, import_object, is_object_name
from smoothed.utils.modes import Classifier

ZOO = Path("zoo")
"""Folder of the networks `zoo/NAME`, in a checkout of this project's repository."""
PYTHON = ".py"


def load(
    model: str | Path | Classifier,
    *,
    model_args: Mapping[str, Any] | str | None = None,
    weights: str | Path | None = None,
    normalize: Statistics | None = None,
    outputs: Outputs = "logits",
    device: torch.device | str | None = None,
) -> nn.Module:
    """Load a classifier as a network from images (N, C, H, W) in [0, 1] to logits (N, K).

    Args:
        model: one of
            the name of a bundled checkpoint (see `smoothed.bundled`);
            the path of a checkpoint that `smoothed.save` wrote;
            `zoo/NAME`, for the file zoo/NAME.safetensors in the current folder;
            `package.module:function`, a function (or class) that returns a network, such as `timm:create_model`. The
            module is looked for on the import path and in the current folder, and its code is run;
            a network, which is neither changed nor copied unless `weights` or `device` require it, and keeps its mode;
            any other callable from images to logits.
        model_args: keyword arguments of `package.module:function`, as a dictionary or as a JSON object.
        weights: file of weights to load into the network: a checkpoint of this package (its noise is injected, too), a
            safetensors file of any other program, or a torch file with a state dict, alone or under the key
            `state_dict`, `model_state_dict` or `model`. A prefix `module.` of all names is removed. Nothing is
            unpickled but tensors and plain values. A network given as an object is copied first.
        normalize: mean and standard deviation for each channel, in pixel units of [0, 1], or a `Normalize` layer, to be
            put in front of a network that expects normalised images.
        outputs: what the model returns: `logits`, or `probabilities`, whose logarithm is then taken.
        device: device of the network; None for the CPU, or for the present device of a network given as an object.

    Returns:
        The network itself if it needs no adaptation, else a `ModelAdapter` around it: for `normalize`, for
        probabilities, for weights of another dtype than float32, and for callables that are no `torch.nn.Module`. It is
        in eval mode unless it was given as an object. Where a checkpoint of this package was read, its header is the
        attribute `checkpoint_header`. Where a name or a file was given, the attribute `loaded_name` is that name, or
        the path of the weights, and results show it. Outputs with the logits as their attribute `logits` need no
        adaptation: every function of this package reads them.

    Raises:
        ArgumentError: an argument is invalid, the function of the user's raises an error or returns no network.
        CheckpointError: a file is missing, truncated, or of another format, its weights do not fit the network, or it
            cannot be read without running code of its own.

    Example:
        >>> load("resnet20-cni-w")(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> load("smoothed.models:build", model_args={"architecture": "resnet20", "num_classes": 5}).linear
        Linear(in_features=64, out_features=5, bias=True)
        >>> load(nn.Flatten(), normalize=((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))(torch.zeros(1, 3, 1, 1))
        tensor([[-2., -2., -2.]])
    """
    check_choice(outputs, ("logits", "probabilities"), "outputs")
    network, is_users = _find_classifier(model, _arguments(model_args, model))
    target = _checked_device("cpu" if device is None and not is_users else device)
    if weights is not None:
        check_path(weights, "weights")
        if not isinstance(network, nn.Module):
            raise ArgumentError("weights", "None for a callable that is no torch.nn.Module", repr(str(weights)))
        network = copy.deepcopy(network) if is_users else network
        checkpoint.load_weights(network, weights)
    if isinstance(network, nn.Module):
        network = _on_device(network, target, keep=network is model)
        if not is_users:
            network.eval()
        if not _needs_adapter(network, normalize, outputs):
            return _named(network, model, weights)
    adapter = ModelAdapter(network, normalize, outputs)
    if target is not None and adapter.front is not None:
        _move(adapter.front, target)
    return _named(adapter, model, weights)


def _named(network: nn.Module, model: object, weights: Path | str | None) -> nn.Module:
    """The network, which remembers the name or the file that it was loaded by, if there is one."""
    name = str(model) if isinstance(model, str | Path) else None if weights is None else str(weights)
    if name is not None:
        vars(network)["loaded_name"] = name
    return network


def loaded_name(network: nn.Module) -> str | None:
    """The name or the path by which `load` loaded a network, or that of the network in an adapter; None for others."""
    inner = network.model if isinstance(network, ModelAdapter) else network
    return getattr(network, "loaded_name", None) or getattr(inner, "loaded_name", None)


def checkpoint_path(model: object) -> Path | None:
    """Return the path of the file if `model` names a checkpoint of `load`, else None.

    Args:
        model: as in `load`. A bundled name comes before a file of this name, and a file before
            `package.module:function`.
    """
    if not isinstance(model, str | Path):
        return None
    bundled = checkpoint.bundled()
    if str(model) in bundled:
        return bundled[str(model)]
    path = Path(model).expanduser()
    in_zoo = Path(f"{path}{checkpoint.SUFFIX}")
    if not path.is_file() and path.parts[:1] == (ZOO.name,) and in_zoo.is_file():
        return in_zoo
    return path if path.is_file() else None


def _arguments(model_args: Mapping[str, Any] | str | None, model: object) -> dict[str, Any]:
    expected = "a dictionary, or a JSON object, of keyword arguments"
    arguments: object = model_args
    if isinstance(model_args, str):
        try:
            arguments = json.loads(model_args)
        except json.JSONDecodeError as error:
            raise ArgumentError("model_args", expected, repr(model_args), f"it is no JSON: {error}") from None
    if arguments is None and model_args is None:
        return {}
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        raise ArgumentError("model_args", expected, repr(model_args))
    if arguments and not (isinstance(model, str) and is_object_name(model)):
        raise ArgumentError("model_args", "none, unless the model is a package.module:function", repr(model_args))
    return dict(arguments)


def _find_classifier(model: str | Path | Classifier, arguments: dict[str, Any]) -> tuple[Classifier, bool]:
    """The classifier, and whether it is an object of the user's."""
    if not isinstance(model, str | Path):
        if isinstance(model, type) or not callable(model):
            raise _unknown_model(model)
        return model, True
    if str(model).endswith(PYTHON):
        raise _unknown_model(model)
    if (path := checkpoint_path(model)) is not None:
        return _from_checkpoint(path), False
    if is_object_name(str(model)) or ".py:" in str(model):  # the latter raises an error that says what to write
        return _from_function(str(model), arguments), False
    raise _unknown_model(model)


def _unknown_model(model: object) -> ArgumentError:
    bundled = tuple(checkpoint.bundled())
    expected = (
        f"a bundled name ({', '.join(bundled)}), the path of a checkpoint, {ZOO}/NAME, package.module:function, "
        "a network or another callable"
    )
    if isinstance(model, type):
        return ArgumentError(
            "model", expected, f"the class {model.__name__}", f"create an object: {model.__name__}(...)"
        )
    hint = ""
    if isinstance(model, str | Path):
        in_zoo = [str(path.with_suffix("")) for path in sorted(ZOO.glob(f"*{checkpoint.SUFFIX}"))]
        similar = difflib.get_close_matches(str(model), [*bundled, *in_zoo])
        hint = f"did you mean {' or '.join(similar)}?" if similar else "there is no such file"
        if str(model).endswith(PYTHON):
            parts = Path(model).with_suffix("").parts
            is_below = all(part.isidentifier() for part in parts)  # the current folder
            module, where = (".".join(parts), "") if is_below else (parts[-1], ", in the folder of this file")
            hint = f"write {module}:NAME{where}, where NAME is a function in it that returns a network"
        return ArgumentError("model", expected, repr(str(model)), hint)
    return ArgumentError("model", expected, f"{model!r:.80}")


def _from_checkpoint(path: Path) -> nn.Module:
    try:
        checkpoint.read_header(path)
    except CheckpointError as error:
        hint = (
            "for weights of another program, give the function that builds the network as model, this file as weights"
        )
        raise CheckpointError(f"{error}; {hint}") from None
    return checkpoint.load(path)


def _from_function(name: str, arguments: dict[str, Any]) -> Classifier:
    """Call the function of the user's that returns a classifier. A network of this name is copied."""
    expected = "a function that returns a network or another callable"
    function = import_object(name, "model")
    if isinstance(function, nn.Module) and not arguments:
        return copy.deepcopy(function)
    if isinstance(function, nn.Module) or not callable(function):
        raise ArgumentError("model", expected, f"{name}, an object of type {type(function).__name__}")
    _check_arguments(name, function, arguments)
    try:
        with current_folder_importable():  # the function may import modules, too
            made = function(**arguments)
    except Exception as error:  # the user's code may raise any error
        raise ArgumentError("model", expected, f"{name}, which raises {error_summary(error)}") from error
    if isinstance(made, type) or not callable(made):
        got = f"the class {made.__name__}" if isinstance(made, type) else f"an object of type {type(made).__name__}"
        raise ArgumentError("model", expected, f"{name}, which returns {got}")
    return cast("Classifier", made)


def _check_arguments(name: str, function: Callable[..., object], arguments: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have none
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        hint = f"its arguments are {signature}"
        raise ArgumentError("model_args", f"the arguments of {name}", f"{arguments} ({error})", hint) from None


def _checked_device(device: torch.device | str | None) -> torch.device | None:
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError):
        raise ArgumentError("device", "a device of torch, such as cpu or cuda:0", repr(device)) from None


def _on_device(network: nn.Module, device: torch.device | None, *, keep: bool) -> nn.Module:
    """The network on the device; a copy if it must be moved and `keep` is true."""
    present = device_of(network)
    if device is None or present is None:
        return network
    if present.type == device.type and device.index in {None, present.index}:
        return network
    return _move(copy.deepcopy(network) if keep else network, device)


def _move(network: nn.Module, device: torch.device) -> nn.Module:
    try:
        return network.to(device)
    except (AssertionError, RuntimeError) as error:  # torch raises the former without the device's support
        raise ArgumentError("device", "a device that this computer has", str(device), error_summary(error)) from error


def _needs_adapter(network: nn.Module, normalize: Statistics | None, outputs: Outputs) -> bool:
    casts = isinstance(network, ModelAdapter) or float_dtype(network) in {None, torch.float32}
    return normalize is not None or outputs != "logits" or not casts
