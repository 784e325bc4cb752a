"""The docs site: built without a warning, all links followed, nothing asked of another server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(root: Path, out: Path, kind: str) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout as `make site` does."""
    words = ("-W", "--keep-going", "-q", "-d", out.parent / "doctrees", "-b", kind, root / "docs", out)
    command = [sys.executable, "-m", "sphinx", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, out, "html")
    assert (done.returncode, done.stderr) == (0, "")
    return out


def test_every_page_is_built_and_reached_from_the_first(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} | {"notebook"}
    linked = set(re.findall(r'href="([a-z]+)\.html"', (site / "index.html").read_text()))
    assert pages - {"index"} <= linked
    assert all((site / f"{page}.html").is_file() for page in pages)


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text()):
            address = re.search(r'(?:src|href)="([^"]*)"', tag)
            assert not address or not address[1].startswith(("http", "//")), f"{page.name}: {tag}"


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("contributing", "Working on defectbench"),
        ("changelog", "Unreleased"),
        ("commands", "defectbench data import"),
        ("api", "open_store"),
        ("notebook", "filterbank-knn"),
    ],
)
def test_page_from_elsewhere_has_its_text(site: Path, page: str, said: str) -> None:
    assert said in (site / f"{page}.html").read_text()


BROKEN = {
    "nowhere.md": "docs/data.md",
    "sweeps.md#no-such-heading": "docs/data.md",
    "no-such-image.png": "docs/data.md",
    "docs/nowhere-either.md": "README.md",
    "src/nowhere.py": "CONTRIBUTING.md",
}
"""Link to nothing -> the file that it stands in."""


def test_broken_links_are_errors_and_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    pages = ("conf.py", "index.md", "contributing.md", "data.md", "sweeps.md")
    for file in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{page}" for page in pages)):
        shutil.copy(ROOT / file, tmp_path / file)
    for link, file in BROKEN.items():
        with (tmp_path / file).open("a") as text:
            text.write(f"\n[a link]({link})\n")
    done = build(tmp_path, tmp_path / "site", "dummy")
    assert done.returncode != 0
    for link in BROKEN:
        assert f"'{link.partition('#')[2] or link.removeprefix('docs/')}'" in done.stderr.replace("'../", "'")
