"""A site of two published suites, and a browser without a network."""

import shutil
from pathlib import Path

import pytest

from harness.site.build import build

RESULTS = Path(__file__).parents[3] / "results"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of a site of `quick`, and of `fair`, which has tracks and trials."""
    folder = tmp_path_factory.mktemp("site")
    build(folder, ["quick", "fair"], RESULTS)
    return folder


@pytest.fixture(scope="session")
def chromium():
    """A headless browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, request):
    """Opens a page of a site from its folder, without a network; no message may stand in the console in the end."""
    contexts, problems = [], []

    def open_page(folder, address, **options):
        context = chromium.new_context(offline=True, **{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda asked: problems.append(f"{asked.url} failed"))
        page.goto((folder / "x").as_uri()[:-1] + address)
        page.wait_for_selector("html[data-ready]", timeout=20_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems
