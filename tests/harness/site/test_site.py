"""The site in a browser, opened from its folder without a network: everything on it works and can be read."""

import csv
import json

import pytest

MAIN = ["index.html", "suites/quick.html"]
PAGES = [
    *MAIN, "runs/fair/rwkv4/text--params.html", "architectures/index.html", "architectures/mamba.html",
    "compare.html#a=rwkv4&b=pre_ln", "claims/data.html",
]  # fmt: skip
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
LOOKS = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}


def overflow(page):
    """How many pixels the page is wider than the screen."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("look", "address"),
    [
        pytest.param(look, address, marks=() if address in MAIN or name == "light" else pytest.mark.with_all)
        for name, look in LOOKS.items()
        for address in PAGES
    ],
)
def test_pages_fit_and_can_be_read_by_anybody(visit, site, look, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(site, address, **look)
    for chart in page.locator("figure.chart").all():
        chart.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelectorAll('figure.chart').length === views.length")
    assert overflow(page) == 0
    found = axe.run(page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    assert not [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]


@pytest.mark.slow
@pytest.mark.with_all
def test_every_page_opens_without_an_error(visit, site):
    for file in sorted(site.rglob("*.html")):
        visit(site, str(file.relative_to(site))).context.close()


def names(page, table="#matrix"):
    return page.eval_on_selector_all(f"{table} tbody tr[data-row]", "rows => rows.map(row => row.dataset.row)")


@pytest.mark.slow
def test_the_matrix_sorts_filters_and_keeps_its_state_in_the_address(visit, site):
    page = visit(site, "index.html")
    everybody = names(page)
    page.click("#matrix th:has-text('FLOPs')")
    page.wait_for_selector("#matrix th[aria-sort]")
    assert names(page) != everybody
    assert sorted(names(page)) == sorted(everybody)
    page.click("[data-preset=recurrent]")
    assert {"rwkv4", "lstm"} <= {*names(page)} < {*everybody}
    page.fill("[name=q]", "rwkv")
    assert all("rwkv" in name for name in names(page))
    page.select_option("[name=suite]", "quick")
    page.wait_for_function("document.querySelectorAll('#matrix th.task').length === 3")
    address = page.url
    assert all(part in address for part in ("preset=recurrent", "q=rwkv", "suite=quick"))
    again = visit(site, "index.html#" + address.split("#")[1])
    assert names(again) == names(page)
    assert again.input_value("[name=q]") == "rwkv"
    cell = page.query_selector("#matrix td.cell.ranked")
    assert "bits_per_byte" in cell.get_attribute("title")


def picked(page):
    """The names of all rows that stand out, by their background."""
    plain = "getComputedStyle(document.querySelector('tr.baseline td')).backgroundColor"
    shown = f"row => getComputedStyle(row.cells[row.cells.length - 1]).backgroundColor !== {plain}"
    return page.evaluate(f"[...document.querySelectorAll('tr[data-row]')].filter({shown}).map(row => row.dataset.row)")


@pytest.mark.slow
def test_a_row_that_is_picked_stands_out_in_all_tables_and_charts(visit, site):
    page = visit(site, "suites/quick.html")
    page.click("[data-pick=rwkv4]")
    assert picked(page) == ["rwkv4"] * 6, "three tasks, all of them, times, and who beats whom"
    assert "row=rwkv4" in page.url
    page.locator("figure.chart").first.scroll_into_view_if_needed()
    page.wait_for_function("views.length && views.every(view => view.signal('row') === 'rwkv4')")
    page.keyboard.press("Enter")  # the button has the focus
    assert picked(page) == []
    score = page.locator("[id='text:table'] tr[data-row=rwkv4] a")
    assert "seed 0:" in page.locator("[id='text:table'] tr[data-row=rwkv4] td:has(a)").get_attribute("title")
    score.click()
    page.wait_for_selector("html[data-ready]")
    assert page.inner_text("h1") == "rwkv4 on text"
    assert "zoobench verify quick/rwkv4/text/0 --rerun 1" in page.inner_text("main")


@pytest.mark.slow
def test_a_comparison_is_that_of_the_board(visit, site, call):
    page = visit(site, "compare.html#a=s4d&b=pre_ln")
    shown = page.eval_on_selector_all(
        "#comparison tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    )
    found = json.loads(call("compare", "s4d", "pre_ln", "quick", "--results", site_results(), "--json").stdout)
    by_task = {row["task"]: row for row in found["tasks"]}
    ours = {row[0].removeprefix("quick: "): row for row in shown if row[0].startswith("quick: ")}
    assert ours.keys() == by_task.keys()
    for task, row in ours.items():
        assert float(row[2]) == pytest.approx(by_task[task]["difference"], rel=1e-3)
        assert float(row[3]) == pytest.approx(by_task[task]["high"] - by_task[task]["difference"], rel=1e-3)
        verdict = {"better": "s4d is better", "worse": "pre_ln is better"}.get(
            by_task[task]["verdict"], "not separated"
        )
        assert row[4] == verdict
    page.click("#swap")
    assert "a=pre_ln&b=s4d" in page.url
    with page.expect_download() as download:
        page.click("[data-save=csv][data-of=comparison]")
    lines = list(csv.reader(download.value.path().read_text().splitlines()))
    assert len(lines) == 1 + len(shown)
    exact = {line[0].removeprefix("quick: "): -float(line[2]) for line in lines if line[0].startswith("quick: ")}
    assert exact == {task: pytest.approx(row["difference"], rel=1e-12) for task, row in by_task.items()}


def site_results():
    from .conftest import RESULTS

    return RESULTS


@pytest.mark.slow
def test_tables_of_suites_are_files_too(site):
    for kind in ("csv", "json", "tex"):
        assert "rwkv4" in (site / "downloads" / "quick" / f"text.{kind}").read_text().replace("\\_", "_")


@pytest.mark.slow
def test_the_front_page_is_small(site):
    assets = [site / "index.html", *(site / "assets").glob("*")]
    assert sum(file.stat().st_size for file in assets) < 5e6
