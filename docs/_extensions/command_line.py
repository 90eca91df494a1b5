"""The directive `commands`: every subcommand of `smoothed` with its options, read from the command itself."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from recipes_table import table
from smoothed.cli.main import build_app

HEADERS, WIDTHS = ("option", "meaning"), (30, 70)


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - click's group
    """Yield the full name of each command of a group, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def paragraphs(text: str) -> list[nodes.Node]:
    """Return the paragraphs of a help text; lines after "Examples:" are commands."""
    text = inspect.cleandoc(text.replace("\b", ""))
    body, _, examples = text.partition("Examples:")
    parts: list[nodes.Node] = [with_code(part) for part in re.split(r"\n\s*\n", body.strip())]
    if examples.strip():
        code = inspect.cleandoc("\n" + examples)
        parts.append(nodes.literal_block(code, code, language="sh"))
    return parts


def with_code(text: str) -> nodes.paragraph:
    """Return a paragraph in which text between backticks is code."""
    pieces = re.split(r"`([^`]*)`", " ".join(text.split()))
    return nodes.paragraph(
        "", "", *(nodes.literal(text=piece) if number % 2 else nodes.Text(piece) for number, piece in enumerate(pieces))
    )


def option_rows(command: Any) -> list[list[nodes.Node]]:  # noqa: ANN401 - click's command
    """Return a row for each option, with its default."""
    context = typer.Context(command)
    rows: list[list[nodes.Node]] = []
    for parameter in command.params:
        record = getattr(parameter, "get_help_record", lambda _: None)(context)
        if getattr(parameter, "hidden", False) or record is None:
            continue
        names, text = record
        rows.append([nodes.paragraph("", "", nodes.literal(text=names)), with_code(text)])
    return rows


class Commands(SphinxDirective):
    """See the module."""

    def run(self) -> list[nodes.Node]:
        """Return one section for each command."""
        sections: list[nodes.Node] = []
        for name, command in commands(typer.main.get_command(build_app())):
            section = nodes.section(ids=[nodes.make_id(name)], names=[name])
            section += nodes.title(text=f"smoothed {name}")
            section += paragraphs(command.help or "")
            section += table(HEADERS, WIDTHS, option_rows(command))
            self.state.document.note_implicit_target(section)
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
