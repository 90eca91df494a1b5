"""Help texts list the names of the registries, and print without importing torch."""

import subprocess
import sys

import pytest

from smoothed.attacks import EVALUATION_ATTACKS, TRAINING_ATTACKS
from smoothed.attacks.ball import BALLS
from smoothed.attacks.query_based.queries import SEES
from smoothed.cli import choices
from smoothed.injection import PRESETS
from smoothed.models import ARCHITECTURES
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.votes import VOTES
from smoothed.training.config import AUGMENTATIONS
from smoothed.training.examples import EXAMPLES
from smoothed.training.losses import TRAINING_LOSSES
from smoothed.training.schedules import SCHEDULES

REGISTRIES = {
    "EVALUATION_ATTACKS": EVALUATION_ATTACKS,
    "TRAINING_ATTACKS": TRAINING_ATTACKS,
    "EXAMPLES": EXAMPLES,
    "NORMS": BALLS,
    "SEES": SEES,
    "NOISES": NOISES,
    "VOTES": VOTES,
    "INJECTIONS": PRESETS,
    "ARCHITECTURES": ARCHITECTURES,
    "AUGMENTATIONS": AUGMENTATIONS,
    "TRAINING_LOSSES": TRAINING_LOSSES,
    "RATE_SCHEDULES": SCHEDULES,
}


@pytest.mark.parametrize("name", REGISTRIES)
def test_help_texts_list_every_name_in_the_order_of_its_registry(name):
    assert getattr(choices, name) == tuple(REGISTRIES[name])


def test_every_list_is_compared():
    assert {name for name in vars(choices) if name.isupper()} == set(REGISTRIES)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["evaluate", "--sigm", "0.1"], ["--version"]])
def test_help_and_usage_errors_need_no_torch(arguments):
    """Importing torch takes about two seconds, which completion would wait for at every TAB."""
    program = (
        "import sys\nfrom smoothed.cli.main import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit:\n    sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stdout + done.stderr


def test_completion_needs_no_torch():
    program = (
        "import os, sys\nos.environ.update(_SMOOTHED_COMPLETE='complete_bash', COMP_WORDS='smoothed train --no', "
        "COMP_CWORD='2')\nfrom smoothed.cli.main import main\n"
        "try:\n    main([])\nexcept SystemExit:\n    sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--normalize" in done.stdout.split()
