"""Public names of the package: links to them from code in pages, their docstrings, and the check that none is missing.

The package exports names from the modules that define them. The API reference documents each under its public name.
"""

import importlib
import re
import sys
from functools import cache
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import PycodeError
from sphinx.ext import autosummary
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

MODULES = ("smoothed", "smoothed.attacks", "smoothed.stopping", "smoothed.votes", "smoothed.noise")
"""Public modules under their public names; the first that has a name wins."""
DOCUMENTED_WHOLE = MODULES[:3]
CODE = re.compile(r"^([A-Za-z_][\w.]*)(\(.*)?$", re.DOTALL)
LOGGER = logging.getLogger(__name__)


def lookup(env: BuildEnvironment, name: str) -> tuple[str, str] | None:
    """Return page and anchor of a name: its public name, a part of it, or the name in the module that defines it."""
    objects = env.domains.python_domain.objects
    parts = name.split(".")
    # From the whole name to its last two parts (a method) and its last part.
    for first in range(len(parts)):
        for prefix in ("", *(f"{module}." for module in MODULES)):
            entry = objects.get(prefix + ".".join(parts[first:]))
            if entry is not None:
                return entry.docname, entry.node_id
    return None


def resolve(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Resolve a reference to a name by the module that defines it, as in the types of arguments."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not re.fullmatch(r"[\w.]+", target) or target.split(".")[0] in ("torch", "nn"):
        return None
    is_other = "." in target and target.split(".")[0] not in ("smoothed", "attacks", "stopping", "votes", "noise")
    if is_other and not target[0].isupper():
        return None
    found = lookup(env, target)
    if found is None:
        return None
    return _reference(app, node["refdoc"], found, target, content)


def _reference(app: Sphinx, docname: str, found: tuple[str, str], title: str, content: nodes.Node) -> nodes.reference:
    page, anchor = found
    uri = f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
    return nodes.reference("", "", content, internal=True, refuri=uri, reftitle=title)


def link_code(app: Sphinx, document: nodes.document, docname: str) -> None:
    """Link code in the text of a page to the API reference if it is a class, a call, or a name with its module."""
    for literal in list(document.findall(nodes.literal)):
        if isinstance(literal.parent, nodes.reference | nodes.title) or literal.get("classes"):
            continue
        match = CODE.match(literal.astext())
        if match is None:
            continue
        name, call = match.groups()
        is_class = name[0].isupper() and not name.isupper()
        is_dotted = name.startswith(("smoothed.", "attacks.", "stopping.", "votes.", "noise."))
        found = lookup(app.env, name) if is_class or is_dotted or call else None
        if found is not None and found[0] != docname:
            literal.replace_self(_reference(app, docname, found, name, literal.deepcopy()))


@cache
def _home_docstring(name: str, identity: int) -> tuple[str, ...]:
    """The docstring below the assignment of a variable in the module that defines it; empty if there is none."""
    for module in [*sys.modules.values()]:
        if not getattr(module, "__name__", "").startswith("smoothed.") or id(vars(module).get(name)) != identity:
            continue
        try:
            comments = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
        except PycodeError:
            continue
        if ("", name) in comments:
            return tuple(comments["", name])
    return ()


def describe_data(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ANN401, ARG001, PLR0917
    """Give a variable the docstring of the module that defines it, rather than that of its type."""
    if what == "data" and not isinstance(obj, ModuleType):
        lines[:] = _home_docstring(name.rpartition(".")[2], id(obj))


def check_complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names without a page."""
    del app
    objects = env.domains.python_domain.objects
    for module in DOCUMENTED_WHOLE:
        public = importlib.import_module(module)
        for name in public.__all__:
            if not isinstance(getattr(public, name), ModuleType) and f"{module}.{name}" not in objects:
                LOGGER.warning("%s.%s is public, but docs/api does not list it", module, name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to the resolution of references, to autodoc and to the consistency checks."""
    autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.",)  # no sentence of a summary ends there
    app.connect("missing-reference", resolve)
    app.connect("doctree-resolved", link_code)
    app.connect("autodoc-process-docstring", describe_data, priority=100)  # before napoleon reads it
    app.connect("env-check-consistency", check_complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
