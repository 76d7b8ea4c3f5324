"""Take the pictures of the README: the front page of the site, and the suite quick.

python benchmarks/site_pictures.py
"""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from harness.site.build import build

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = {"site.png": ("index.html", 900), "suite.png": ("suites/quick.html", 1000)}
"""By picture: the page, and how much of it is seen at a width of 1280 pixels."""


def main() -> None:
    """Build the site of all results and photograph it."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as running:
        folder = Path(name) / "site"
        build(folder)
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for picture, (address, height) in PICTURES.items():
            page = browser.new_page(viewport={"width": 1280, "height": height})
            page.goto((folder / address).as_uri())
            page.wait_for_selector("html[data-ready]")
            page.screenshot(path=DOCS / picture)
        browser.close()


if __name__ == "__main__":
    main()
