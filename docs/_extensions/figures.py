"""Let the gallery show figures that functions of the package return, such as `Result.plot`.

sphinx-gallery shows the figures of pyplot. The package makes figures without pyplot, which leaves the user's own alone.
"""

from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def returned_figures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:  # noqa: ANN401, ARG001
    """Save each new figure among the variables of an example, and return the reStructuredText that shows it."""
    paths = []
    for value in block_vars["example_globals"].values():
        if isinstance(value, Figure) and not hasattr(value, "number") and not getattr(value, "shown", False):
            value.shown = True  # pyright: ignore[reportAttributeAccessIssue] - remembered until the example ends
            path = next(block_vars["image_path_iterator"])
            value.savefig(path, dpi=100, bbox_inches="tight")
            paths.append(path)
    return figure_rst(paths, gallery_conf["src_dir"])
