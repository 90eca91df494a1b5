"""Model card of a run: all that is needed to repeat it, and its metrics, as one JSON file."""

import json
from pathlib import Path
from typing import Any

from smoothed.checkpoint import SUFFIX, read_header
from smoothed.errors import CheckpointError
from smoothed.training.config import TrainingConfig
from smoothed.training.run import Run
from smoothed.utils.files import write_json

CARD = "card.json"


def write_card(run: Run, folder: Path, epochs: list[dict[str, Any]], command: str | None) -> None:
    """Write `folder/card.json`: configuration, versions, git revision, hardware, and the metrics of every epoch."""
    card = {**training_record(run, command), "kept": run.kept, "epochs": epochs}
    write_json(card, folder / CARD)


def training_record(run: Run, command: str | None) -> dict[str, Any]:
    """Return the entries of a run that the card and the checkpoints share, without metrics."""
    return {
        "config": run.config.to_json(),
        "command": command,
        "seconds": round(run.seconds, 1),
        **run.provenance,
        **({"from": run.parent} if run.parent else {}),
    }


def read_config(path: Path | str) -> TrainingConfig:
    """Read a training configuration from a model card, a checkpoint's header, or a JSON file of settings.

    Raises:
        CheckpointError: the file is missing or contains no configuration.
        ArgumentError: a setting is unknown to this version or has the wrong type.
    """
    path = Path(path)
    try:
        if path.suffix == SUFFIX:
            values = read_header(path).get("training", {})
        else:
            values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"config: expected a model card in JSON or a checkpoint, got {path} ({error})") from None
    values = values.get("config", values) if isinstance(values, dict) else None
    if not isinstance(values, dict) or not values:
        raise CheckpointError(f"config: expected a training configuration in {path}, got none")
    return TrainingConfig.from_json(values)
