"""Formulas as MathML, which browsers show without a script and without a network."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def mathml(formula: str, display: str) -> str:
    """Return a formula as MathML. The converter does not know the command for arg max of the pages."""
    return convert(formula.replace(r"\arg\max", r"\operatorname{argmax}"), display=display)


def inline(writer: Any, node: nodes.math) -> None:  # noqa: ANN401 - the HTML writer
    """Write a formula inside a line."""
    writer.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:  # noqa: ANN401 - the HTML writer
    """Write a formula on lines of its own."""
    writer.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer `mathml`."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
