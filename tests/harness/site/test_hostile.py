"""The site of suites made to break it: what is text stays text, every link leads somewhere, every page opens."""

from collections import Counter
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from harness.site.build import build

from . import hostile


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The folder of the site of every suite in `hostile`."""
    root, folder = tmp_path_factory.mktemp("odd"), tmp_path_factory.mktemp("odd_site")
    rows = hostile.write_all(root)
    build(folder, [], root)
    assert len([*folder.glob("runs/*/*/*.html")]) == rows
    return folder


class Page(HTMLParser):
    """What a page holds, as a browser reads it."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.ids, self.links = Counter(), Counter(), []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags[tag] += 1
        self.ids.update(filter(None, [found.get("id")]))
        self.links += filter(None, [found.get("href")])
        assert not {name for name in found if name.startswith("on")} - {"onsubmit"}


@pytest.mark.slow
def test_every_link_leads_somewhere_and_nothing_is_markup(odd):
    files = [file for file in odd.rglob("*") if file.is_file()]
    names = Counter(str(file.relative_to(odd)).lower() for file in files)
    assert not [name for name, count in names.items() if count > 1], "the same file where A is a"
    pages = {file: Page(file) for file in files if file.suffix == ".html"}
    for file, page in pages.items():
        assert page.tags["h1"] == 1
        assert not page.tags["img"] + page.tags["u"] + page.tags["i"]
        assert max(page.ids.values()) == 1, (file, page.ids.most_common(1))
        for link in page.links:
            path, _, anchor = link.partition("#")
            target = (file.parent / unquote(path)).resolve() if path else file
            if not link.startswith(("https://", "data:,")):
                assert target.is_file(), (file, link)
                assert "=" in anchor or not anchor or anchor in pages[target].ids, (file, link)


@pytest.mark.slow
@pytest.mark.with_all
def test_every_kind_of_page_opens_fits_and_says_what_is_there(visit, odd):
    runs = sorted((odd / "runs").glob("odd/*/text.html"))
    kinds = [*sorted(odd.glob("suites/*")), *runs[::10], *odd.glob("*.html"), odd / "architectures" / "pre_ln.html"]
    for file in kinds:
        for width in (1280, 390):
            page = visit(odd, file.relative_to(odd).as_posix(), viewport={"width": width, "height": 800})
            page.evaluate("dispatchEvent(new Event('beforeprint'))")  # all charts are drawn
            page.wait_for_function("[...document.querySelectorAll('[data-chart] .plot')].every(plot => plot.innerText)")
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide == 0, (file, width)
            page.context.close()
    page = visit(odd, "suites/odd.html")
    shown = page.eval_on_selector_all("tbody tr[data-row]", "rows => rows.map(row => row.dataset.row)")
    assert {*hostile.NAMES} <= {*shown}
    for name in hostile.NAMES:
        page.locator(".legend button").filter(has_text=name.strip()[:20]).first.evaluate("button => button.click()")


@pytest.mark.slow
def test_names_of_javascript_are_names_like_others(visit, odd):
    page = visit(odd, "compare.html#a=__proto__&b=constructor")
    assert "is better than constructor on" in page.inner_text("#verdict")
    page.select_option("[name=b]", "toString")
    assert page.locator("#comparison tbody tr").count() == len(hostile.TASKS)
    page.select_option("[name=a]", "pre_ln")
    assert page.inner_text("#verdict") == "No board ranks both pre_ln and toString."
