"""Wrong values for each kind of parameter, and how a call with one of them must fail."""

import inspect
import json
import math

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import smoothed
from smoothed.errors import SmoothedError

NAN, INF = math.nan, math.inf
TALL = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
"""An object that is printed in several lines."""
NUMBERS = ["3", True, NAN, [1], None, 1j, TALL]
"""What is no number, or no finite one."""


def generator():
    return torch.Generator().manual_seed(0)


class Files:
    """Files and folders of every wrong kind in one folder.

    Attributes:
        root: the folder.
        missing: a path where nothing is.
        folder: an empty folder.
        text: a file of text.
        truncated: the first bytes of a file of tensors, with its suffix.
        unwritable: a path inside of a file, where no user can write.
        results: files of results, in each of which one part has a wrong form.
    """

    def __init__(self, root):
        self.root, self.missing, self.folder = root, root / "missing.safetensors", root / "folder"
        self.text, self.truncated, self.unwritable = root / "text.txt", root / "cut.safetensors", root / "text.txt/x"
        self.folder.mkdir()
        self.text.write_text("text\n")
        self.truncated.write_bytes((1000).to_bytes(8, "little") + b'{"a":')
        right = smoothed.Result("evaluate", [{"accuracy": 0.5}]).to_json()
        wrong = [{part: 3} for part in right] + [{"rows": [3]}, {"comparisons": [3]}, {"comparisons": [{"name": "a"}]}]
        self.results = [root / f"result-{index}.json" for index in range(len(wrong))]
        for path, part in zip(self.results, wrong, strict=True):
            path.write_text(json.dumps({**right, **part}))

    def state(self):
        """Every path below the root, with what it holds."""
        return {path: path.read_bytes() if path.is_file() else None for path in sorted(self.root.rglob("*"))}


def pair(images=None, labels=None):
    """Images and labels of two classes, 3 x 4 x 4, with one of them in another form."""
    images = torch.rand(4, 3, 4, 4, generator=generator()) if images is None else images
    return images, torch.arange(4) % 2 if labels is None else labels


class Counting(nn.Module):
    """Two logits, and a count of the calls."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(48, 2), 0
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1, 1, 96).view(2, 48))

    def forward(self, inputs):
        self.calls += 1
        return self.layer(inputs.flatten(1))


def _data(files):
    ok = pair()[0]
    return [
        3, None, "nofile", "", files.missing, files.folder, files.text, str(files.truncated), (), (ok,), [], ok,
        pair(labels=torch.zeros(3, dtype=torch.int64)), pair(ok * 3), pair(ok * NAN), pair(ok - 1), pair(ok[0, 0]),
        pair(ok[:0], torch.zeros(0, dtype=torch.int64)), pair(labels=torch.tensor([0, 1, -1, 0])),
        pair(labels=torch.rand(4)), pair(labels=torch.tensor([0, 1, 2, 0])), pair(ok.to(torch.complex64)),
        pair(ok.numpy().astype(object)), pair(labels=["a"] * 4), {"image": ok}, object(), nn.Linear(3, 2), print,
        DataLoader(TensorDataset(ok)), DataLoader(TensorDataset(ok[:0], torch.zeros(0, dtype=torch.int64))),
        np.zeros((4, 3, 4, 4), dtype=np.uint8),
    ]  # fmt: skip


def _networks(files):
    return [
        3, None, "nonet", "", "no_such_module:net", files.missing, files.folder, files.text, str(files.truncated),
        object(), [], nn.Linear(3, 2), lambda inputs: inputs, lambda _: None, lambda _: 1 / 0,
    ]  # fmt: skip


def raises(_value):
    raise RuntimeError("first line\nsecond line")


def of_all_images(model, inputs, _labels):
    """An objective that returns one value for all images."""
    return model(inputs).mean()


def of_classes(model, inputs, _labels):
    """An objective that returns one value for each image and class."""
    return model(inputs)


def kinds(files):
    """Lists of wrong values, by the kind of the parameter."""
    ok, labels = pair()
    return {
        "classifier": _networks(files),
        "data": _data(files),
        "attack": ["pdg", "", 3, None, ["pgd"], object(), "no_such_module:attack", ("pgd", "fgsm"), True],
        "radius": ["8/255", -1, NAN, INF, True, 8, [0.1], 1j, object()],
        "positive radius": ["8/255", 0, -1, NAN, INF, True, 8, [0.1], 1j],
        "count": [0, -1, 2.5, INF, torch.ones(2), *NUMBERS],
        "optional count": [0, -1, 2.5, INF, "3", True, NAN, [1]],
        "number of images": [0, -1, 2.5, INF, "3", True, NAN, [1], 1000],
        "not negative integer": [-1, 2.5, INF, *NUMBERS],
        "seed": ["a", 1.5, None, [0], INF, True, 2**70],
        "flag": ["yes", 2, None, [], 0.5, TALL],
        "path of a folder to write": [3, "", files.text, files.unwritable, b"x", [files.folder], "a\0b"],
        "path of a file to write": [3, "", files.folder, files.unwritable, b"x", ["a"], "a\0b"],
        "split": ["tset", "", 3, None, ["test"]],
        "keys": [3, "image", ("a",), ("a", "b", "c"), (1.5, "b"), {"a": "b"}, (None, None)],
        "name": [3, b"x", ["a"], object()],
        "progress": [3, "print", [print]],
        "processes": [3, None, "2", 1.5],
        "noises": [3, "gaussian", (3,), ("gaussian",), [[]], object()],
        "votes": ["hard", "", 5, (5,), (), ("soft", "soft"), ("soft", "hard"), object(), True],
        "vote": ["hard", "", 5, (), ["soft"], object(), None, True],
        "counts": [0, -1, 2.5, "3", (), (1, 0), (2, 2), (1, "3"), (1, None), True, INF, object()],
        "sources": [3, "net", ["a"], {"a": 3}, {3: Counting()}, {"a": None}],
        "choice": ["no-such-choice", "", 3, None, [], True],
        "fraction": [-0.1, 1.5, INF, *NUMBERS],
        "level": [0, 0.5, 1, -0.1, *NUMBERS],
        "optional level": [0, 0.5, 1, -0.1, "3", True, NAN, [1]],
        "deviations": ["0.1", -1, NAN, INF, 2, (), (0.1, 0.1), (0.1, "a"), (None,), True, object()],
        "normalized deviations": ["0.1", -1, NAN, INF, (), (0.1, 0.1), (0.1, "a"), (None,), True, object()],
        "noise factory": ["pink", "", 3, None, [], lambda sigma: sigma, raises, lambda: 3],
        "radii": ["0.1", -1, NAN, INF, (), (0.1, "a"), (None,), True, object()],
        "network": [3, None, "net", object(), [], [TALL]],
        "model": [3, None, object(), [], [TALL]],
        "images": [3, None, "x", [], ok[0], ok * 3, ok * NAN, ok - 1, ok[:0], (ok * 255).byte(), ok.numpy()],
        "labels": [3, None, "x", [], ok, labels[:2], labels.float(), labels - 1, labels + 5, labels[:, None]],
        "number": ["3", True, NAN, INF, [1], 1j, object()],
        "positive": [0, -1, "3", True, NAN, INF, [1], 1j, None],
        "not negative": [-1, "3", True, NAN, INF, [1], 1j, None],
        "optional not negative": [-1, "3", True, NAN, INF, [1], 1j],
        "optional positive": [-1, "3", True, NAN, INF, [1], 1j],
        "share": [-0.1, 1.5, "3", True, NAN, INF, [1], 1j, None],
        "open share": [1.5, -0.1, "3", True, NAN, None, [1]],
        "deviation": ["0.1", -1, NAN, INF, None, True, object(), (), (0.1, -1), (0.1, "a")],
        "function": [3, "f", object(), [], [TALL]],
        "required function": [3, "f", object(), [], None],
        "generator": [3, "x", object()],
        "networks": [3, "net", (), (3,), None, [None]],
        "text": [3, None, b"x", ["a"]],
        "file to read": [3, None, "", files.missing, files.folder, files.text, files.truncated, "a\0b"],
        "optional file to read": [3, "", files.missing, files.folder, files.text, files.truncated, "a\0b"],
        "statistics": [3, "x", (), (0.5, "a"), (NAN, 0.5, 0.5), object()],
        "standard deviations": [3, "x", (), (0.5, "a"), (NAN, 0.5, 0.5), (0.5, 0, 0.5), (0.5, -1, 0.5), object()],
        "normalize": [3, "x", (), (0.5,), (0.5, 0), (0.5, NAN), ("a", "b"), ((0.5,), (0.0,)), ((0.5,) * 2, (1.0,) * 3)],
        "model arguments": [3, "x", "", "[1]", [1], {3: 1}, {"no_such_argument": 1}],
        "layer": [3, "no_such_layer", []],
        "chunk size": [0, -1, 2.5, "3", True, NAN, [1]],
        "stop": ["no-such-rule", 3, object(), []],
        "device": [3, "no-such-device", "cuda:99", object()],
        "recipe": ["no-such-recipe", "", 3, None, object(), print, raises, lambda: 3, lambda: 1 / 0],
        "injected": [3, "pni", object(), {3: 3}, {nn.Linear: 3}],
        "header": [3, "x", [], {"a": object()}],
        "weights of ranks": [3, "x", (), (1, "a"), (1, NAN), (1, INF), (None,), object()],
        "start": [3, "no-such-checkpoint", "", files.missing, files.text],
        "validation": [3, "nofile", files.missing, files.folder, (ok,), ok, object(), pair(ok * 3)],
        "layers": [3, ("no_such_layer",), (3,)],
        "training attack": ["pdg", 3, ["pgd"], object(), "no_such_module:attack"],
        "optional seed": ["a", 1.5, [0], INF, True, 2**70],
        "mean draws": ["3", -1, 0, NAN, [1], None],
        "positive share": [0, -1, 1.5, "3", NAN, None],
        "types of labels": [3, None, "x", [], ok, labels[:2], labels.float(), labels[:, None]],
        "model to load": [
            3,
            None,
            "nonet",
            "",
            "no_such_module:net",
            files.missing,
            files.folder,
            files.text,
            object(),
        ],
        "level of a stop": [0, 1, 1.5, -0.1, "3", True, NAN, None, [1]],
        "number or infinity": [-1, "3", True, NAN, [1], None],
        "optional flag": ["yes", 2, [], 0.5],
        "attacked model": [3, None, "net", object(), [], [TALL], lambda _: None, lambda inputs: inputs, lambda _: 3],
        "radius of an attack": [-1, INF, *NUMBERS, torch.ones(2), -torch.ones(4), torch.full((4,), NAN)],
        "length of a step": [-1, "3", True, NAN, INF, [1], 1j, torch.ones(2), -torch.ones(4), torch.full((4,), NAN)],
        "objective": [3, 0, False, "f", object(), [], lambda *_: None, lambda *_: 3, of_all_images, of_classes],
        "factory": [3, "f", object(), [], None, lambda _: 3, lambda _: None, lambda _: lambda *_: None],
        "loss": [3, "f", object(), [], None, lambda *_: None, lambda *_: 3, lambda logits, _: logits.mean()],
        "images to start from": [3, "x", [], ok[0], ok[:2], ok.numpy(), (ok * 255).byte()],
        "sources of options": [3, "net", (3,), None, [None], [TALL, None]],
        "optional network": [3, "net", [], object(), nn.Flatten(), lambda inputs: inputs],
        "votes of a tally": [3, "soft", None, ("hard",), (3,), {"a": 3}, {"a": "hard"}],
        "counts of draws": [0, -1, 2.5, INF, "3", True, NAN, (), (1, 0), (1, "3"), (1, None), object()],
        "source of noise": [3, "x", object(), torch.Generator(), TALL],
        "input noise": [3, "gaussian", None, object()],
        "list": [3, "x", None, (1,), [3], {}],
        "dict": [3, "x", None, [1], TALL],
        "path of a result to write": [3, None, "", b"x", "a\0b", "net.safetensors", files.folder, files.unwritable],
        "path of a page to write": [
            *[3, None, "", b"x", "a\0b", "page.txt", files.folder],
            files.unwritable.with_suffix(".html"),
        ],
        "result to compare": [3, "result.json", object(), [], smoothed.Result("train", [], summary={"kept": {}})],
        "result to read": [
            *[3, None, "", "a\0b", files.missing, files.folder, files.text, files.truncated],
            *files.results,
        ],
        "examples": [3, None, "", files.missing, files.folder, files.text, files.truncated, "a\0b"],
    }


def described(value):
    text = f"{value.shape}{value.dtype}" if isinstance(value, torch.Tensor | np.ndarray) else str(value)
    return " ".join(f"{type(value).__name__} {text}".split())[:100]


def parameters(function):
    """Names of the parameters of a function or a class, without those that take any name."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, each in inspect.signature(function).parameters.items() if each.kind not in kinds]


def fault(call, argument, also=()):
    """What is wrong with the error of a call with a wrong `argument`; empty if nothing is.

    Args:
        call: function that makes the call.
        argument: name of the argument as the user wrote it.
        also: what else the message may begin with: other names, or the path as the user wrote it.
    """
    try:
        call()
    except SmoothedError as error:
        message = str(error)
        if "\n" in message:
            return f"several lines: {message!r}"
        names = (argument, *(str(name) for name in also))
        if not any(message.startswith((f"{name}:", f"{name}/")) for name in names):
            return f"names another argument: {message}"
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]!r}"
    return "no error"
