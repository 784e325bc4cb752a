"""The page in a real browser: no complaint on its console, nothing asked of a network, no sideways scroll."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from defectbench.report.page import write
from defectbench.stores.choose import open_store
from fakes import MODELS, made_up_sweep

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=4000",
    "--dump-dom",
)

PROBE = """<script>
addEventListener("load", () => {
  const page = document.documentElement;
  const seen = {
    asked: performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
    broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
    images: document.images.length,
    wide: page.scrollWidth, view: innerWidth,
    outside: [...document.querySelectorAll("main > section > *, header > *")]
      .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
      .map(element => element.outerHTML.slice(0, 80)),
  };
  const heads = document.querySelectorAll(".matrix thead button");
  const cells = () => [...document.querySelectorAll(".matrix tbody td:nth-child(2)")];
  const column = () => cells().map(cell => cell.dataset.value);
  heads[1].click(); seen.rising = column();
  heads[1].click(); seen.falling = column();
  parent.postMessage(JSON.stringify(seen), "*");
});
</script>"""

FRAME = """<!doctype html>
<iframe src="probed.html" style="width: {width}px; height: 900px; border: 0"></iframe>
<pre id="seen"></pre><script>
addEventListener("message", event => document.getElementById("seen").textContent = event.data);
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here; run: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    store = open_store(str(folder / "store"))
    made_up_sweep(
        store, models=MODELS, heat_maps=True, unfinished=1, failed=1, seeds=(0, 1), defect_rate=0.01
    )
    return write(store, "madeup", folder / "out", folder / "cache")


def open_page(browser: str, address: Path, profile: Path, *more: str) -> tuple[str, str]:
    """Return the page's document and what the browser said."""
    command = [browser, *FLAGS, *more, f"--user-data-dir={profile}", address.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def test_page_opens_without_a_complaint(browser: str, page: Path, tmp_path: Path) -> None:
    document, said = open_page(browser, page, tmp_path / "profile")
    assert "<h1>madeup</h1>" in document
    assert "<button" in document  # our script ran: the page's policy allows it
    assert [line for line in said.splitlines() if "CONSOLE" in line] == []


@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_its_window(browser: str, page: Path, tmp_path: Path, width: int) -> None:
    # A frame, because Chromium's own window is never narrower than some 500 px. The probe needs a page
    # without its policy, which would rightly refuse a script that is not its own.
    html = page.read_text(encoding="utf-8")
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    (tmp_path / "probed.html").write_text(html.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width), encoding="utf-8")
    document, said = open_page(
        browser, tmp_path / "frame.html", tmp_path / "profile", "--window-size=1400,1000"
    )
    found = re.search(r'<pre id="seen">(.*?)</pre>', document, flags=re.DOTALL)
    assert found, said[-2000:]
    seen = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert seen["view"] == width
    assert seen["wide"] <= width, seen["outside"]
    assert seen["outside"] == []
    assert seen["asked"] == []
    assert seen["images"] > 0
    assert seen["broken"] == 0
    assert [float(v) for v in seen["rising"]] == sorted(float(v) for v in seen["rising"])
    assert seen["falling"] == seen["rising"][::-1]
