"""Settings of the comparisons with other libraries."""

import contextlib
import tempfile
from pathlib import Path

import filelock

# The first import of adversarial-robustness-toolbox writes a configuration file in the home folder. A second test
# process that reads the unfinished file would fail to import the library, so processes import it one after the other.
with (
    filelock.FileLock(Path(tempfile.gettempdir()) / "smoothed-tests-import-art.lock"),
    contextlib.suppress(ImportError),
):
    import art  # noqa: F401
