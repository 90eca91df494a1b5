"""The examples of the page on training run."""

import re
from pathlib import Path


def test_the_examples_run(capsys):
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "training.md", "exec"), {})  # noqa: S102
    assert len(capsys.readouterr().out.splitlines()) == 2
