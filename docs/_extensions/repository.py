"""Files of the repository in the site: pages that lie outside of docs, and source files that pages link to.

Pages stay plain Markdown with relative links. A page in `PAGES` is a short page of docs that names a Markdown file of
the repository; the site shows the file in its place. Links to these files lead to that page, and links to Python files
to a page with their source. Other files are downloads.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.osutil import relative_uri

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
PAGES = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "results/bundled-network": "src/smoothed/models/assets/README.md",
    "results/bundled-images": "src/smoothed/data/assets/README.md",
}
PAGE_OF = {ROOT / file: DOCS / f"{page}.md" for page, file in PAGES.items()} | {ROOT / "README.md": DOCS / "index.md"}
LINK = re.compile(r"(\[[^\]]*\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^\s*(```|~~~)")


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the file of the repository in place of its page, and make its links relative to the page."""
    page = DOCS / f"{docname}.md"
    if not page.is_file():
        return
    file = ROOT / PAGES[docname] if docname in PAGES else page
    if file != page:
        source[0] = file.read_text(encoding="utf-8")
        app.env.note_dependency(str(file))
    source[0] = "\n".join(_relinked_lines(source[0].split("\n"), file, page))


def _relinked_lines(lines: list[str], file: Path, page: Path) -> Iterator[str]:
    def relinked(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(file.parent / match[2]))
        path = Path(os.path.relpath(PAGE_OF.get(target, target), page.parent))
        return f"{match[1]}{path.as_posix()}{match[3]}"

    in_code = False
    for line in lines:
        in_code ^= bool(FENCE.match(line))
        yield line if in_code else LINK.sub(relinked, line)


def link_sources(app: Sphinx, document: nodes.document) -> None:
    """Lead links to Python files of the repository to pages with their source."""
    docname = app.env.current_document.docname
    for node in list(document.findall(addnodes.download_reference)):
        path = Path(os.path.normpath(DOCS / Path(docname).parent / node["reftarget"]))
        if path.suffix == ".py" and path.is_file() and path.is_relative_to(ROOT / "src"):
            name = f"source/{path.relative_to(ROOT / 'src').with_suffix('').as_posix()}"
            _sources(app).setdefault(name, (path, set()))[1].add(docname)
            uri = relative_uri(app.builder.get_target_uri(docname), f"{name}.html")
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def _sources(app: Sphinx) -> dict[str, tuple[Path, set[str]]]:
    """The source files that pages link to, with the pages that do, by the names of their own pages."""
    if not hasattr(app.env, "linked_sources"):
        app.env.linked_sources = {}  # pyright: ignore[reportAttributeAccessIssue] - kept with the environment
    return app.env.linked_sources  # pyright: ignore[reportAttributeAccessIssue]


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each source file that a page links to."""
    for name, (path, _) in _sources(app).items():
        title = path.relative_to(ROOT).as_posix()
        code = app.builder.highlighter.highlight_block(path.read_text(encoding="utf-8"), "python")  # pyright: ignore[reportAttributeAccessIssue]
        yield name, {"title": title, "body": f"<h1><code>{title}</code></h1>{code}"}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to the reading of pages and to the writing of the site."""
    app.connect("source-read", read_page)
    app.connect("doctree-read", link_sources, priority=100)  # before Sphinx copies the files that are downloads
    app.connect("html-collect-pages", source_pages)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
