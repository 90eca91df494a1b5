"""The time that a progress bar's work still takes."""

from bisect import bisect_right

from rich.progress import ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

# Least increase of the elapsed time between two points of a history, so that histories stay short.
SPACING = 1.01


class History:
    """How much work was finished when, from time 0 on, with a straight line between the points."""

    def __init__(self) -> None:
        self.times, self.amounts = [0.0], [0.0]

    def add(self, time: float, amount: float) -> None:
        """Enter the amount of finished work at a time in seconds; a time or an amount that falls begins anew."""
        if time < self.times[-1] or amount < self.amounts[-1]:
            self.times, self.amounts = [0.0], [0.0]
        if amount == self.amounts[-1]:
            return
        if time == 0:
            self.amounts = [amount]
            return
        if time == self.times[-1] or (len(self.times) > 2 and time < SPACING * self.times[-2]):
            self.times.pop()
            self.amounts.pop()
        self.times.append(time)
        self.amounts.append(amount)

    def seconds_left(self, time: float, total: float) -> float | None:
        """Estimate the time left from the speed in the second half of the time up to the last finished work.

        The first half would mislead: a continued evaluation begins with work that is only read from a folder.
        """
        last, amount = self.times[-1], self.amounts[-1]
        if last == 0:
            return None
        speed = (amount - self._amount_at(last / 2)) / (last / 2)
        return max(0.0, (total - amount) / speed - (time - last))

    def _amount_at(self, time: float) -> float:
        after = bisect_right(self.times, time)
        start, end = self.times[after - 1], self.times[after]
        share = (time - start) / (end - start)
        return self.amounts[after - 1] + share * (self.amounts[after] - self.amounts[after - 1])


class TimeLeftColumn(ProgressColumn):
    """The time left as `0:12:30`, estimated from the first finished piece of work on."""

    def __init__(self, table_column: Column | None = None) -> None:
        super().__init__(table_column)
        self._histories: dict[TaskID, History] = {}

    def render(self, task: Task) -> Text:
        """See `ProgressColumn.render`."""
        history = self._histories.setdefault(task.id, History())
        elapsed = task.elapsed or 0.0
        history.add(elapsed, task.completed)
        left = None if task.total is None else history.seconds_left(elapsed, task.total)
        return Text("-:--:--" if left is None else _clock(round(left)), style="progress.remaining")


def _clock(seconds: int) -> str:
    """Hours, minutes and seconds: `30:05:00`."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
