"""What a run needs to go on after a kill: one folder a saved step, complete or absent.

A step's folder is written under another name and renamed when it is whole, so the newest one is always readable.
Everything random in a run is a function of its seed and step; so the tensors and the step are the whole state.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from smoothed.checkpoint import FORMAT_VERSION, read_tensors, write_tensors
from smoothed.errors import CheckpointError, OutputError
from smoothed.utils.files import write_text

PARTIAL = ".partial-"

Groups = dict[str, dict[str, Tensor]]
"""Named groups of named tensors: the weights, their average, the momentum. Each is a file of its own."""


def save_state(folder: Path, step: int, groups: Groups, meta: dict[str, Any]) -> None:
    """Save the state of `step` and drop older ones.

    Args:
        folder: where the states live, one subfolder each.
        step: steps done.
        groups: the tensors.
        meta: anything else that resuming needs, as JSON values.

    Raises:
        OutputError: the disk is full or the folder read-only; the previous state is intact.
    """
    target = folder / f"step-{step:08d}"
    partial = folder / f"{PARTIAL}{os.getpid()}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for name, tensors in groups.items():
            write_tensors(partial / f"{name}.safetensors", tensors, {"format_version": FORMAT_VERSION})
        write_text(partial / "meta.json", json.dumps({**meta, "step": step, "groups": list(groups)}))
        if target.exists():  # the same step again: its state is the same, too
            return
        partial.rename(target)
    except OSError as error:
        raise OutputError(f"{target}: could not be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for older in _states(folder):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)


def load_state(folder: Path) -> tuple[Groups, dict[str, Any]] | None:
    """The newest state's tensors and meta (with `step`), or None where nothing was saved.

    Raises:
        CheckpointError: the state is damaged.
    """
    for partial in folder.glob(PARTIAL + "*"):  # what a kill left half-written
        shutil.rmtree(partial, ignore_errors=True)
    states = _states(folder)
    if not states:
        return None
    try:
        meta = json.loads((states[-1] / "meta.json").read_text(encoding="utf-8"))
        groups = {name: read_tensors(states[-1] / f"{name}.safetensors")[0] for name in meta["groups"]}
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{states[-1]}: expected a training state, got a damaged one ({error}); delete it"
        ) from None
    return groups, meta


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-????????"))
