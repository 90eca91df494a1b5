"""Metrics of a run as JSON lines, and in TensorBoard through Accelerate's tracker."""

import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from smoothed.errors import OutputError
from smoothed.utils.files import write_text


class Metrics:
    """Log of a run, one JSON object per line of `folder/metrics.jsonl`, written by the main process.

    Args:
        folder: folder of the run.
        accelerator: Accelerator whose trackers receive the metrics as well.
        step: number of finished steps; lines of later steps, which a kill has undone, are deleted.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, step: int) -> None:
        self.path = folder / "metrics.jsonl"
        self.accelerator = accelerator
        if accelerator.is_main_process:
            kept = [line for line in self.read() if line["step"] <= step]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def read(self) -> list[dict[str, Any]]:
        """Return all lines, without an incomplete last line from a kill."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def log(self, step: int, **numbers: float) -> None:
        """Append a line with `numbers` for `step`.

        Raises:
            OutputError: the file cannot be written.
        """
        self.accelerator.log(numbers, step=step)
        if not self.accelerator.is_main_process:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **numbers}) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}: could not be written ({error.strerror or error})") from error
