"""The progress bar: complete numbers in 80 columns, and the time left from the first finished piece of work on."""

import io

import pytest
import torch
from rich.console import Console

import smoothed
from smoothed.cli.console import progress_bar
from smoothed.cli.time_left import History

DESCRIPTIONS = (
    "attacking and voting",
    "passes (a backward pass counts as two)",
    "epoch 123/200  loss 1.234\nvalidation 45.6 %, PGD-7 34.5 %",
    "train-the-resnet20-of-the-paper-with-noise-of-all-kinds-seed-0",
)


@pytest.fixture(params=[80, 120])
def width(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def shown(bar, width):
    console = Console(width=width, file=io.StringIO())
    console.print(bar.get_renderable())
    return console.file.getvalue()


@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_all_numbers_are_shown_within_the_first_minute(description, width):
    bar = progress_bar()
    task = bar.add_task(description, total=None)
    assert "0:00:00 left -:--:--" in shown(bar, width)
    bar.update(task, completed=2_000, total=122_000)
    bar.tasks[0].start_time -= 30  # 60 times as much work is left as was finished
    text = shown(bar, width)
    assert "2000/122000 0:00:30 left 0:30:0" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    words = text.replace("━", " ").replace("2000/122000 0:00:30 left 0:30:0", " ").split()
    assert "".join(words).startswith("".join(description.split())[:20])


def test_days_are_shown_in_hours(width):
    bar = progress_bar()
    task = bar.add_task("training", completed=0, total=1000)
    bar.update(task, completed=1)
    bar.tasks[0].start_time -= 120  # and 999 times as much is left
    assert "0:02:00 left 33:18:0" in shown(bar, width)


def test_the_time_left_is_that_of_a_constant_speed():
    history = History()
    for number in range(1, 40):
        history.add(90.0 * number, number)  # rarer than twice a minute
        assert history.seconds_left(90.0 * number, 40) == pytest.approx(90 * (40 - number))
    assert history.seconds_left(90.0 * 39 + 30, 40) == pytest.approx(60)
    assert history.seconds_left(90.0 * 39 + 300, 40) == 0


def test_work_that_was_only_read_does_not_count():
    history = History()
    for number in range(1, 51):
        history.add(0.01 * number, number)
    history.add(60.5, 51)
    assert history.seconds_left(60.5, 60) == pytest.approx(9 * 60, rel=0.02)


def test_the_second_half_of_the_time_counts():
    history = History()
    history.add(100.0, 10)
    history.add(200.0, 30)  # 20 in the second half
    assert history.seconds_left(200.0, 50) == pytest.approx(100)


def test_it_begins_anew_with_a_new_piece_of_work():
    history = History()
    history.add(100.0, 50)
    history.add(0.0, 1000)  # continued from step 1000
    assert history.seconds_left(0.0, 1100) is None
    history.add(10.0, 1010)
    assert history.seconds_left(10.0, 1100) == pytest.approx(90)
    history.add(20.0, 5)
    assert history.seconds_left(20.0, 10) == pytest.approx(20)


def test_a_long_history_stays_short_and_right():
    history = History()
    for number in range(1, 100_000):
        history.add(0.1 * number, number)
    assert len(history.times) < 2_000
    assert history.seconds_left(10_000.0, 200_000) == pytest.approx(10_000, rel=0.01)


def test_the_time_left_of_200_images_is_shown_within_the_first_tenth():
    """The clock of the network ticks once for each image of a pass, three times with its gradient."""
    time, shown, history = 0, [], History()

    class Clocked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(12, 2)

        def forward(self, inputs):
            nonlocal time
            time += len(inputs) * (3 if torch.is_grad_enabled() else 1)
            return self.layer(inputs.flatten(1))

    def report(done, total):
        history.add(time, done)
        shown.append((time, history.seconds_left(time, total)))

    classifier = smoothed.Smoothed(Clocked(), smoothed.Gaussian(0.1), num_samples=64, layer="layer", seed=0)
    data = (torch.rand(200, 3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 2)
    smoothed.evaluate(classifier, data, attack="pgd", on_progress=report)
    assert shown[0][0] < time / 10
    assert shown[-1] == (time, 0)
    for at, left in shown:
        assert left == pytest.approx(time - at, abs=0.1 * time)
