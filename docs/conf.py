"""How Sphinx turns docs/ into pages: ``python -m sphinx -b html -W --keep-going docs runs/site``."""

from __future__ import annotations

from typing import Any

project = "isac-twin"
author = "the authors of isac-twin"
extensions = ["myst_parser"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = project
root_doc = "index"

# The pages' order in the margin; what is not named here stands under "Look up". It is not in index.md, which is read as plain Markdown elsewhere too.
TREE = {
    "Begin": ["start", "tutorials/researcher", "tutorials/controller", "tutorials/testbed", "tutorials/"],
    "Understand": ["subframe", "conventions", "theory/", "reproduction", "performance", "CHANGELOG"],
    "Look up": ["scenario", "protocol", ""],
    "Decisions": ["decisions/"],
}


def with_tree(app: Any, name: str, source: list[str]) -> None:
    """Append the tree to the first page: pages as named, and for a folder those in it that have no name."""
    if name != root_doc:
        return
    found = sorted(app.env.found_docs - {root_doc} - {page for pages in TREE.values() for page in pages})
    for caption, pages in TREE.items():
        rows: list[str] = []
        for page in pages:
            folder = page.rpartition("/")[0]
            rows += [one for one in found if one.rpartition("/")[0] == folder] if page in ("", folder + "/") else [page]
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *rows, "```", ""])


def setup(app: Any) -> None:
    """Sphinx calls this once."""
    app.connect("source-read", with_tree)
