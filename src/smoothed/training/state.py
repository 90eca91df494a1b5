"""Saved states of a run, from which it resumes after a kill: one folder per saved step.

A folder is written under a temporary name and renamed once it is complete, so the newest state is always readable.
All random numbers of a run are a function of its seed and step, so a state consists of tensors and the step.
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
"""Tensors by group (weights, weight average, momentum, ...) and name. Each group is one file."""


def save_state(folder: Path, step: int, groups: Groups, meta: dict[str, Any]) -> None:
    """Save the state after `step` steps and delete older states.

    Args:
        folder: folder of all states; each gets a subfolder.
        step: number of finished steps.
        groups: tensors of the state.
        meta: further values that resuming needs, as JSON values.

    Raises:
        OutputError: the disk is full or the folder is read-only; the previous state is intact.
    """
    target = folder / f"step-{step:08d}"
    partial = folder / f"{PARTIAL}{os.getpid()}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for name, tensors in groups.items():
            write_tensors(partial / f"{name}.safetensors", tensors, {"format_version": FORMAT_VERSION})
        write_text(partial / "meta.json", json.dumps({**meta, "step": step, "groups": list(groups)}))
        if target.exists():  # the state of a step is always the same
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
    """Load the tensors and the other values (with `step`) of the newest state; None if there is no state.

    Raises:
        CheckpointError: the state is damaged.
    """
    for partial in folder.glob(PARTIAL + "*"):  # incomplete folders of killed runs
        shutil.rmtree(partial, ignore_errors=True)
    states = _states(folder)
    if not states:
        return None
    try:
        meta = json.loads((states[-1] / "meta.json").read_text(encoding="utf-8"))
        groups = {name: read_tensors(states[-1] / f"{name}.safetensors")[0] for name in meta["groups"]}
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{states[-1]}: expected a training state, got a damaged one ({error}); delete this folder"
        ) from None
    return groups, meta


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-????????"))
