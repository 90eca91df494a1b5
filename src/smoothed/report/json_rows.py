"""Evaluation rows as a JSON file."""

import json
from collections.abc import Sequence
from pathlib import Path

from smoothed.evaluation.rows import Row
from smoothed.files import write_text


def write_rows(rows: Sequence[Row], path: Path | str) -> Path:
    """Write the rows as a JSON list of objects, atomically; raises `OutputError`."""
    return write_text(path, json.dumps([row.to_json() for row in rows], indent=1) + "\n")
