"""Configuration of the documentation site: `make docs` builds it into docs/_build/html, without a network."""

import os
import sys
from importlib.resources import files
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_extensions"))
# Threads that spin while they wait double the time of an example beside one busy process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import smoothed  # noqa: E402 - torch reads the environment that is set above

# Sphinx imports every name that it documents, and these modules have public names of their own.
for name in ("noise", "stopping", "votes"):
    sys.modules[f"smoothed.{name}"] = getattr(smoothed, name)

project = "smoothed"
author = "The smoothed authors"
copyright = author  # noqa: A001 - the name that Sphinx reads
version = release = smoothed.__version__
language = "en"
smartquotes_action = "qe"  # two hyphens begin an option

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "command_line",
    "mathml",
    "public_names",
    "recipes_table",
    "repository",
]
root_doc = "index"
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_templates", "gallery"]
templates_path = ["_templates"]

# The pages are plain Markdown that a code host shows, too.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"

# Docstrings mark code with single backticks. A name of the package becomes a link, other code stays as it is.
default_role = "py:obj"
add_module_names = False
autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Source", "notes_style")]

html_theme = "furo"
html_title = f"smoothed {version}"
html_show_copyright = False
html_show_sphinx = False
html_static_path = ["_static", str(files("ziamath.fonts") / "STIXTwoMath-Regular.ttf")]
html_css_files = ["site.css"]

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "gallery_order.GalleryOrder",
    "abort_on_example_error": True,  # an example that fails ends the build
    "image_scrapers": ("matplotlib", "figures.returned_figures"),
    "doc_module": ("smoothed",),
    "backreferences_dir": "api/backreferences",
    "write_computation_times": False,
    "show_memory": False,
    "remove_config_comments": True,
    "plot_gallery": True,
    "first_notebook_cell": "# Needs the package `smoothed`: run `pip install .` in a checkout of its repository.\n"
    "%matplotlib inline",
}
