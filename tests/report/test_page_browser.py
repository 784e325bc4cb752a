"""The page in a real browser: nothing asked of a network, no sideways scroll, no serious finding of axe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from defectbench.report.page import write_report
from defectbench.stores.choose import open_store
from fakes import MODELS, made_up_sweep

pytestmark = pytest.mark.browser

WIDTHS = {"phone": 390, "laptop": 1280, "print": 718}  # of paper: A4 less its margins, at 96 px an inch
GRAVE = ("serious", "critical")
RULES = {
    "light": {"resultTypes": ["violations"]},
    "dark": {"runOnly": ["color-contrast"], "resultTypes": ["violations"]},  # nothing else can differ
}


@dataclass
class Seen:
    """A page that is open, what it asked for and what it complained about."""

    page: Page
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here; run: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    store = open_store(str(folder / "store"))
    made_up_sweep(
        store,
        categories=("grass",),
        models=MODELS,
        heat_maps=True,
        unfinished=1,
        failed=1,
        defect_rate=0.01,
        protocols={
            "detection": {"folds": 3},
            "unseen": {"modes": ["one"]},
            "scarcity": {"defects": [1, 2], "draws": 2},
            "contamination": {"shares": [0, 0.2]},
        },
    )
    return write_report(store, "madeup", folder / "out", folder / "cache")


def see(browser: Browser, written: Path, medium: str, colours: str) -> Seen:
    size = ViewportSize(width=WIDTHS[medium], height=900)
    page = browser.new_page(viewport=size, color_scheme="dark" if colours == "dark" else "light")
    seen = Seen(page)
    page.on("request", lambda request: seen.asked.append(request.url))
    page.on("console", lambda message: seen.said.append(message.text))
    page.on("pageerror", lambda error: seen.said.append(str(error)))
    page.emulate_media(media="print" if medium == "print" else "screen")
    page.goto(written.as_uri())
    return seen


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("medium", WIDTHS)
def test_page_serves_everybody(browser: Browser, written: Path, medium: str, colours: str) -> None:
    seen = see(browser, written, medium, colours)
    page = seen.page
    found = Axe().run(page, options=RULES[colours]).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in GRAVE] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[medium]
    assert [url for url in seen.asked if not url.startswith("data:")] == [written.as_uri()]
    assert seen.said == []
    page.close()


def test_page_shows_all_its_pictures(browser: Browser, written: Path) -> None:
    page = see(browser, written, "laptop", "light").page
    assert page.locator("img").count() > 0
    broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert page.evaluate(broken) == 0
    page.close()


def test_a_tables_head_sorts_it(browser: Browser, written: Path) -> None:
    page = see(browser, written, "laptop", "light").page
    head = page.locator(".matrix thead th").nth(1)
    values = "cells => cells.map(cell => Number(cell.dataset.value))"
    column = page.locator(".matrix tbody td:nth-child(2)")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = column.evaluate_all(values)
    assert rising == sorted(rising)
    head.get_by_role("button").click()
    assert column.evaluate_all(values) == rising[::-1]
    page.close()
