"""The docs site, by Sphinx: `make site` builds it into site/. It asks no other server for anything."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {"index": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
"""Page of the site -> the file at the repository's root whose text comes before the page's own."""

_LINK = re.compile(r"\]\(([^)#\s]+)")
_OUTSIDE = re.compile(r"\]\((\.\./[^)#\s]+\.md)\)")

project = "defectbench"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py", "_build"]
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 4
myst_links_external_new_tab = False
nb_execution_mode = "off"  # a test executes the notebook
autodoc_typehints = "none"
autodoc_member_order = "bysource"
highlight_language = "none"
smartquotes = False


def setup(app: Sphinx) -> None:
    """Let the root's files be pages, and other files be files."""
    app.connect("source-read", _add_root_page)
    app.connect("source-read", _offer_files_outside)


def _add_root_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Put a root file's text before the page's own, its links as seen from docs/."""
    if page in ROOT_PAGES:
        file = ROOT / ROOT_PAGES[page]
        app.env.note_dependency(str(file))
        source[0] = f"{_LINK.sub(_followed, file.read_text(encoding='utf-8'))}\n{source[0]}"


def _offer_files_outside(app: Sphinx, page: str, source: list[str]) -> None:
    """Offer Markdown files outside docs/ that are no pages as files; MyST would look for their pages."""
    source[0] = _OUTSIDE.sub(r"](path:\1)", source[0])


def _followed(link: re.Match[str]) -> str:
    """Return a link of a root file as seen from docs/."""
    target = link[1]
    pages = {file: f"{page}.md" for page, file in ROOT_PAGES.items()}
    if target in pages or target.startswith(("docs/", "https:")):
        return f"]({pages.get(target, target.removeprefix('docs/'))}"
    return f"](../{target}"
