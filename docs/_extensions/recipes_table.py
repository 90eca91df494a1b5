"""The directive `recipes`: the table of all training recipes, as `smoothed recipes` prints it."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from smoothed.training.cost import forward_equivalents
from smoothed.training.recipes import RECIPES

HEADERS = ("recipe", "source", "settings", "forward passes", "epochs")
WIDTHS = (14, 24, 38, 12, 8)


def table(headers: tuple[str, ...], widths: tuple[int, ...], rows: list[list[nodes.Node]]) -> nodes.table:
    """Return a table of the given cells, whose first column holds code."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(headers))
    head = nodes.row("", *(nodes.entry("", nodes.paragraph(text=header)) for header in headers))
    body = [nodes.row("", *(nodes.entry("", cell) for cell in row)) for row in rows]
    group += [nodes.thead("", head), nodes.tbody("", *body)]
    return nodes.table("", group)


class Recipes(SphinxDirective):
    """See the module."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows: list[list[nodes.Node]] = []
        for recipe in RECIPES.values():
            config = recipe.config()
            texts = (recipe.source, recipe.changes, str(forward_equivalents(config)), str(config.epochs))
            name = nodes.paragraph("", "", nodes.literal(text=recipe.name))
            rows.append([name, *(nodes.paragraph(text=text) for text in texts)])
        return [table(HEADERS, WIDTHS, rows)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("recipes", Recipes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
