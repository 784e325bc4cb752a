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


@pytest.mark.parametrize(
    ("file", "link"),
    [
        ("docs/data.md", "nowhere.md"),
        ("docs/data.md", "sweeps.md#no-such-heading"),
        ("docs/data.md", "no-such-image.png"),
        ("README.md", "docs/nowhere.md"),
        ("CONTRIBUTING.md", "src/nowhere.py"),
    ],
)
def test_broken_link_is_an_error(tmp_path: Path, file: str, link: str) -> None:
    for part in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / part, tmp_path / part)
    for name in ("conf.py", "index.md", "contributing.md", "data.md", "sweeps.md"):
        (tmp_path / "docs").mkdir(exist_ok=True)
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs" / name)
    with (tmp_path / file).open("a") as text:
        text.write(f"\n[a link]({link})\n")
    done = build(tmp_path, tmp_path / "site", "dummy")
    assert done.returncode != 0
    assert (link.partition("#")[2] or link.removeprefix("docs/")) in done.stderr
