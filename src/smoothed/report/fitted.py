"""Tables that fit the width of the terminal: headers and long names are wrapped there, and nothing is cut."""

import re
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

# Widths of the pieces of a long name that a column leaves in one line: as long as there is room, and at least.
COMFORTABLE, SHORTEST = 12, 6

UNLIMITED = 10_000

# A name such as `package.module:some_function` is broken after the first of these, and after the second if need be.
SEPARATORS = (".:/", "_-")


class Words:
    """Text of a table that is wrapped as `wrapped` does.

    Args:
        text: one line of text, which may contain names of the user's own functions.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def comfortable(self) -> int:
        """Width of the column below which other cells are wrapped first."""
        return min(self._longest(), COMFORTABLE)

    def __str__(self) -> str:
        return self.text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(self._longest(), SHORTEST), len(self.text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n".join(wrapped(self.text, options.max_width)))

    def _longest(self) -> int:
        return max(map(len, self.text.split()), default=0)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken between words.

    A longer word is broken after `.`, `:` or `/`, what is still too long after `_` or `-`, and what remains anywhere.
    """
    lines = [""]
    for word in text.split():
        space = " " if lines[-1] else ""
        for piece in _pieces(word, width, SEPARATORS):
            if lines[-1] and len(lines[-1] + space + piece) > width:
                lines.append("")
                space = ""
            lines[-1] += space + piece
            space = ""
    return lines


def _pieces(word: str, width: int, separators: Sequence[str]) -> list[str]:
    if len(word) <= width:
        return [word]
    if not separators:
        return [word[start : start + width] for start in range(0, len(word), width)]
    first, *rest = separators
    parts: list[str] = re.findall(f"[^{first}]+[{first}]*|[{first}]+", word)
    return [piece for part in parts for piece in _pieces(part, width, rest)]


class FittedTable(Table):
    """A table below a title, whose columns are narrowed to the terminal so that no cell loses characters.

    Headers and long names are wrapped first, then other cells, and the widest columns before the others. If that is
    not enough, the space between columns becomes smaller.

    Args:
        title: title, which may be wider than the table.
        options: further arguments of `rich.table.Table`.
    """

    def __init__(self, title: str, **options: Any) -> None:  # noqa: ANN401 - as rich declares them
        super().__init__(**options)
        self.heading = title
        self._spacious = self.padding

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        heading = [self.heading] if options.no_wrap else wrapped(self.heading, options.max_width)
        yield Text("\n".join(heading), style="table.title")
        self._narrow(console, options)
        yield from super().__rich_console__(console, options)

    def _narrow(self, console: Console, options: ConsoleOptions) -> None:
        wide = options.update_width(UNLIMITED)
        for column in self.columns:
            column.width = None
        # Columns move together before names are broken into short pieces.
        for padding, steps in ((self._spacious, 2), ((0, 0, 0, 0), 3)):
            self.padding = padding
            self.show_edge = padding == self._spacious or self.box is not SIMPLE_HEAD  # blank characters
            columns = [_Widths(console, wide, column) for column in self.columns]
            frame = Measurement.get(console, wide, self).maximum - sum(each.width for each in columns)
            if _narrowed(columns, options.max_width - frame, steps):
                for column, each in zip(self.columns, columns, strict=True):
                    column.width = each.width
                return
        for column in self.columns:
            column.overflow, column.no_wrap = "fold", False


class _Widths:
    """Widths of a column in characters: the present one, and three floors.

    Above the first, only headers and long names are wrapped; above the second, other cells are wrapped too; below it,
    names are broken into short pieces.
    """

    def __init__(self, console: Console, options: ConsoleOptions, column: Column) -> None:
        cells = list(column.cells)
        measured = [Measurement.get(console, options, part) for part in (column.header, *cells)]
        self.width = max(each.maximum for each in measured)
        least = self.width if column.no_wrap else max(each.minimum for each in measured)
        names = max(part.comfortable if isinstance(part, Words) else 0 for part in (column.header, *cells))
        others = [each.maximum for cell, each in zip(cells, measured[1:], strict=True) if not isinstance(cell, Words)]
        self.floors = (max(least, names, *others), max(least, names), least)


def _narrowed(columns: Sequence[_Widths], room: int, steps: int) -> bool:
    """Narrow columns to `room` characters in all, down to each floor in turn; whether the first `steps` suffice."""
    while sum(each.width for each in columns) > room:
        loose = ([each for each in columns if each.width > each.floors[step]] for step in range(steps))
        widest = max(next(filter(None, loose), ()), key=lambda each: each.width, default=None)
        if widest is None:
            return False
        widest.width -= 1
    return True
