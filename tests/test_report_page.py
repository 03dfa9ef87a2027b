"""The HTML page in a real browser: it sorts, filters, shows a cell's runs, and asks for and runs nothing else."""

import json
import re
from html.parser import HTMLParser

import pytest

from lra_bench.records.files import path_of, write_record
from lra_bench.registry import recipe_module
from lra_bench.report import report
from lra_bench.report.page import without_pictures
from tests.browser import CHROMIUM, DRIVER, Browser
from tests.made_records import RECIPE, bench_record, robustness_record, train_record

pytestmark = pytest.mark.usefixtures("unproved")

HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 1</script>",
    '"><img src=x onerror="window.pwned = 1">',
    "<!--<script>",
    "javascript:window.pwned=1",
    "{{ 7 * 7 }}{% raw %}",
    "\\u003cscript\\u003e ' \" & \u2028",
)
TAGS = re.findall(
    r"\w+",
    "html head meta link title style body header h1 h2 p nav a main section details summary div noscript "
    "table caption thead tbody tr th td button small sup span wbr figure img figcaption dialog script",
)


def hostile_record(text, seed=0):
    record = train_record(
        "s5", "listops", seed, note=text, overrides={text: text}, published_recipe=False, digest=f"h{seed:011d}"
    )
    changed = {
        "system": record.system.model_copy(update={"device_kind": text, "cpu": text, "versions": {text: text}}),
        "provenance": record.provenance.model_copy(update={"command": text, "git_commit": text}),
        "recipe": record.recipe.model_copy(update={"source": text, "notes": text, "layer": {text: text}}),
    }
    return record.model_copy(update=changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, made_up):
    made = tmp_path_factory.mktemp("results")
    accuracy = {"s4": 0.58, "s5": 0.62, "s5_ptd": 0.61}
    for model, base in accuracy.items():
        for task in ("listops", "text", "pathx"):
            for seed in range(3):
                write_record(made, train_record(model, task, seed, base + 0.01 * seed + 0.3 * (task != "listops")))
    published = {"recipe": {**RECIPE, "published": recipe_module("s5_ptd").RECIPES["image"].published}}
    write_record(made, train_record("s5_ptd", "image", 0, 0.87, **published))
    changed = {"layer.dt_min": 0.0001, "layer.dt_max": 0.1, "bidirectional": False}
    write_record(made, train_record("s5", "image", 0, 0.87, digest="c" * 12, published_recipe=False, overrides=changed))
    for length in (1024, 4096):
        write_record(made, bench_record(length=length))
    write_record(made, robustness_record())
    with made_up():
        report(made)
    return made


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory, made_up):
    """Hostile text in every free field, and in the model's name of records that were put there by hand."""
    made = tmp_path_factory.mktemp("hostile")
    for seed, text in enumerate(HOSTILE):
        write_record(made, hostile_record(text, seed))
        record = train_record("x", "image").model_copy(update={"model": text})
        path = path_of(made, record.model_copy(update={"model": f"hostile{seed}"}))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record.model_dump_json())
    with made_up():
        report(made)
    return made


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.mark.parametrize("which", ["folder", "hostile_folder"])
def test_only_our_own_elements_and_no_handlers(which, request):
    text = (request.getfixturevalue(which) / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert {tag for tag, _ in reader.found} <= set(TAGS)
    assert not [name for _, attributes in reader.found for name in attributes if name.startswith("on")]
    assert [attributes.get("type") for tag, attributes in reader.found if tag == "script"] == ["application/json", None]
    for tag, attributes in reader.found:
        for name in ("src", "href", "action"):
            assert re.match(r"#|data:", attributes.get(name) or "#"), (tag, attributes)
        assert "style" not in attributes
    policy = next(attributes["content"] for _, attributes in reader.found if attributes.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_is_the_same_but_for_its_pictures(folder, tmp_path):
    bare = report(folder, tmp_path, pictures=False).files["report.html"]
    drawn = (folder / "report.html").read_text(encoding="utf-8")
    assert bare != drawn
    assert without_pictures(bare) == without_pictures(drawn)


needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium") / "profile") as found:
        yield found


@pytest.fixture
def browser(chromium, request):
    """The page opened anew; which folder's is the test's `request.param`, by default the sound one."""
    page = request.getfixturevalue(getattr(request, "param", "folder")) / "report.html"
    chromium.width(1280)
    chromium.scheme("light")
    for kind in ("performance", "browser"):
        chromium.log(kind)
    chromium.open(page)
    yield chromium
    assert chromium.log("browser") == [], "nothing was said on the console"
    assert not chromium.run("return 'pwned' in window"), "no text from a record ran"


def column(browser, name, block=0):
    """The texts of one column of the accuracy table's block, top to bottom, hidden rows left out."""
    return browser.run(
        """const table = document.getElementById("accuracy-paper");
        const index = titlesOf(table).indexOf(arguments[0]);
        return [...table.tBodies[arguments[1]].rows].filter((row) => !row.hidden && !row.classList.contains("block"))
            .map((row) => row.cells[index].textContent);""",
        name,
        block,
    )


def models(browser):
    return column(browser, "Model")


def numbers(texts):
    """The numbers at the beginning of those texts that have one."""
    return [float(found[0]) for text in texts if (found := re.match(r"[\d.]+", text))]


@needs_browser
def test_it_asks_for_nothing(browser, folder):
    urls = []
    for entry in browser.log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.append(message["params"]["request"]["url"])
    page = (folder / "report.html").resolve().as_uri()
    assert page in urls
    assert all(url == page or url.startswith(("data:", "chrome://")) for url in urls), urls
    assert (
        browser.run("return performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:')).length")
        == 0
    )
    loaded = browser.run("return [...document.images].map((image) => image.complete && image.naturalWidth > 100)")
    assert len(loaded) == 5
    assert all(loaded)


@needs_browser
def test_it_sorts_within_each_block(browser):
    heading = "#accuracy-paper thead th:nth-child(2) button"
    browser.click(heading)
    assert models(browser) == ["S5", "S5-PTD", "S4"]
    last = browser.run("return document.getElementById('accuracy-paper').tBodies.length - 1")
    quoted = numbers(column(browser, "ListOps", last))
    assert quoted == sorted(quoted, reverse=True)
    assert (
        browser.run("return document.querySelector('#accuracy-paper [aria-sort]').getAttribute('aria-sort')")
        == "descending"
    )
    browser.click(heading)
    assert models(browser) == ["S4", "S5-PTD", "S5"]
    browser.click("#accuracy-paper thead th:nth-child(1) button")
    assert models(browser) == ["S4", "S5", "S5-PTD"]
    browser.click("#accuracy-paper thead th:nth-child(7) button")
    values = column(browser, "Path-X", last)
    first_empty = next(i for i, text in enumerate(values) if text.startswith(("✗", "–")))
    assert all(text.startswith(("✗", "–")) for text in values[first_empty:]), "rows without a number come last"


@needs_browser
def test_it_filters(browser):
    browser.type("#section-accuracy-paper input", "S5")
    assert models(browser) == ["S5", "S5-PTD"]
    shown = browser.run("return document.querySelector('#section-accuracy-paper output').textContent")
    assert re.fullmatch(r"\d+ of \d+ rows", shown)
    browser.type("#section-accuracy-paper input", "nothing is called this")
    assert browser.run("return [...document.querySelectorAll('#accuracy-paper .block')].every((row) => row.hidden)")


@needs_browser
def test_a_cell_opens_its_runs(browser):
    browser.click("#accuracy-paper thead th:nth-child(1) button")
    browser.click("#accuracy-paper tbody tr:nth-child(3) [data-runs]")
    assert browser.run("return document.getElementById('details').open")
    text = browser.run("return document.getElementById('details').innerText")
    assert text.lower().startswith("s5 · listops · 63.00 ± 1.00 (3/3)")
    command = "lra-bench train --model s5 --task listops --seed 0"
    for part in (command, "62.00 % (best on validation", "fp-listops", "ssm_lr", "NVIDIA H200", "0123456789abcdef0123"):
        assert part in text
    summaries = "[...document.querySelectorAll('#details-body > details > summary')]"
    runs = browser.run(f"return {summaries}.map((summary) => summary.textContent)")
    assert [run.split(", ")[2] for run in runs] == ["seed 0: 62.00 %", "seed 1: 63.00 %", "seed 2: 64.00 %"]
    assert browser.run("return document.querySelectorAll('#details polyline').length") == 3
    browser.click("#close")
    assert not browser.run("return document.getElementById('details').open")


@needs_browser
@pytest.mark.parametrize("browser", ["hostile_folder"], indirect=True)
def test_hostile_text_is_only_text(browser):
    assert browser.run("return document.scripts.length") == 2
    pictures = browser.run("return document.querySelectorAll('figure').length")
    for seed, text in enumerate(HOSTILE):
        names = browser.run(
            """const all = [...document.querySelectorAll("#accuracy-paper [data-runs]:not([data-runs=''])")];
            const mine = all.find((button) => JSON.parse(document.getElementById("data").textContent)
                .runs[Number(button.dataset.runs.split(" ")[0])].id.includes(arguments[0]));
            mine.click();
            return document.getElementById("details-body").innerText;""",
            f"h{seed:011d}",
        )
        visible = text.replace("\u2028", "")
        assert visible[:12].strip() in names
        browser.click("#close")
    assert browser.run("return document.images.length") == pictures


@needs_browser
@pytest.mark.parametrize("pixels", [1280, 390])
def test_it_fits_its_width_in_light_and_dark(browser, pixels):
    browser.width(pixels, 844)
    grounds = []
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        grounds.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
        assert browser.run("return document.documentElement.scrollWidth") <= pixels
    assert grounds == ["rgb(255, 255, 255)", "rgb(18, 22, 28)"]
    browser.click("#accuracy-paper [data-runs]")
    box = browser.run("const r = document.getElementById('details').getBoundingClientRect(); return [r.left, r.right]")
    assert 0 <= box[0] < box[1] <= pixels


@needs_browser
@pytest.mark.parametrize("pixels", [1280, 390])
def test_no_number_is_broken(browser, pixels):
    browser.width(pixels, 844)
    broken = browser.run(
        """for (const section of document.querySelectorAll("details.section")) section.open = true;
        const found = [], range = document.createRange();
        for (const cell of document.querySelectorAll("main th, main td, .notes p")) {
            const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
            while (walk.nextNode()) {
                for (const match of walk.currentNode.data.matchAll(/(?<!\\w)[+−-]?\\d[\\d.,]*( ± [\\d.]+)?/g)) {
                    range.setStart(walk.currentNode, match.index);
                    range.setEnd(walk.currentNode, match.index + match[0].length);
                    const tops = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
                    if (tops.size > 1 && !cell.matches(".notes p") || tops.size > 1 && !match[1]) found.push(match[0]);
                }
            }
        }
        return found;"""
    )
    assert broken == []


@needs_browser
def test_sorted_by_average_at_first(browser):
    last = browser.run("return document.getElementById('accuracy-paper').tBodies.length - 1")
    found = numbers(column(browser, "Avg(6)", last))
    assert found == sorted(found, reverse=True)
    assert len(found) > 20
    assert browser.run("return document.querySelector('#accuracy-paper [aria-sort] button').textContent") == "Avg(6)"
    assert "sorted by Avg(6)" in browser.run("return document.querySelector('#accuracy-paper caption').textContent")


FOCUS = """const cell = document.activeElement.closest("th, td");
return cell && [cell.parentNode.rowIndex, cell.cellIndex, cell.closest("table").id];"""


@needs_browser
def test_the_keyboard_reaches_everything_in_few_stops(browser):
    browser.press("Tab")
    assert browser.run("return document.activeElement.textContent") == "Skip to the tables"
    browser.press("Enter")
    assert browser.run("return document.activeElement.id") == "main"
    browser.press("Tab", "Tab", "Tab", "Tab")  # the filters of rows, families and columns, then the table
    assert browser.run(FOCUS) == [0, 0, "accuracy-paper"]
    browser.press("Down", "Right")
    assert browser.run(FOCUS) == [2, 1, "accuracy-paper"]
    browser.press("Enter")
    assert browser.run("return document.getElementById('details').open")
    browser.press("Escape")
    browser.wait("!document.getElementById('details').open")
    assert browser.run(FOCUS) == [2, 1, "accuracy-paper"], "where it was"
    browser.press("End", "Up", "Up", "Left", "Home", "Right", "Enter")
    assert browser.run(FOCUS) == [0, 1, "accuracy-paper"]
    assert browser.run("return document.querySelector('#accuracy-paper [aria-sort] button').textContent") == "ListOps"
    browser.press("Tab")
    assert not browser.run("return document.activeElement.closest('#accuracy-paper') !== null"), "one stop per table"
    stops = browser.run("return tables.map((table) => table.querySelectorAll('[tabindex=\"0\"]').length)")
    assert set(stops) == {1}
    rows = "[...document.querySelectorAll('tbody tr:not(.block)')]"
    assert browser.run(f"return {rows}.every((row) => row.cells[0].scope === 'row')")
    assert browser.run("return [...document.querySelectorAll('table')].every((table) => table.caption.textContent)")


@needs_browser
def test_footnotes_are_in_place(browser):
    tip = browser.run(
        """const all = [...document.querySelectorAll("#accuracy-paper .quoted td")];
        moveTo(all.find((cell) => cell.querySelector("sup")?.textContent === "s"));
        return document.getElementById("tip").innerText;"""
    )
    assert "secondary: read in a later paper's table" in tip
    assert "arXiv" in tip
    browser.press("Enter")
    opened = browser.run("return document.getElementById('details').innerText")
    assert "secondary: read in a later paper's table" in opened
    assert "https://" in opened
    browser.press("Escape")
    browser.wait("!document.getElementById('details').open")
    marked = browser.run(
        """const all = [...document.querySelectorAll("#accuracy-paper tbody:not(.quoted) [data-runs]")];
        openDetails(all.find((one) => one.textContent.startsWith("87.00")).closest("td"));
        return document.getElementById("details").innerText;"""
    )
    assert "87.92 %; s: secondary" in marked
    assert "published (s)" in marked


@needs_browser
def test_the_address_keeps_filters_order_and_cell(browser, folder):
    browser.type("#section-accuracy-paper select", "state space")
    assert column(browser, "Model")[0].lower().startswith("s")
    assert "MEGA (2022)" not in column(browser, "Model", browser.run("return tables[0].tBodies.length - 1"))
    browser.type("#section-accuracy-paper input", "s5")
    browser.click("#section-accuracy-paper .tools summary")
    browser.click("#section-accuracy-paper .tools [value=Text]")
    browser.click("#accuracy-paper thead th:nth-child(2) button")
    browser.click("#accuracy-paper tbody tr:nth-child(2) [data-runs]")
    title = browser.run("return document.getElementById('details-title').textContent")
    address = browser.run("return location.hash")[1:]
    headings = "return titlesOf(tables[0]).filter((_, i) => !headingsOf(tables[0])[i].hidden)"
    names, shown = column(browser, "Model"), browser.run(headings)
    assert "Text" not in shown
    browser.open(folder / "report.html", address)
    assert column(browser, "Model") == names
    assert browser.run(headings) == shown
    assert browser.run("return document.getElementById('details-title').textContent") == title
    assert browser.run("return document.getElementById('details').open")
    browser.press("Escape")
    browser.wait("!location.hash.includes('/')")
    browser.open(folder / "report.html", "accuracy-paper/no-such-block/x/Text")
    assert "does not have" in browser.run("return document.getElementById('status').textContent")
    browser.open(folder / "report.html", "section-cells&accuracy-paper.sorted=constructor.sideways&x.rows=1")
    assert browser.run("return document.getElementById('section-cells').open")
    assert "S5-PTD (2023)" in column(browser, "Model", browser.run("return tables[0].tBodies.length - 1"))


@needs_browser
def test_pictures_have_their_own_size(browser):
    sizes = browser.run(
        """return [...document.images].map(
            (image) => [image.width, image.naturalWidth, image.height, image.naturalHeight]
        );"""
    )
    for width, own, height, tall in sizes:
        assert (width, height) == (pytest.approx(own, abs=1), pytest.approx(tall, abs=1))
    browser.width(390, 844)
    assert browser.run("return Math.max(...[...document.images].map((image) => image.width))") < 390


@needs_browser
def test_without_scripts_the_tables_are_whole(browser, folder):
    rows = browser.run("return document.querySelectorAll('tbody tr').length")
    browser.scripts(run=False)
    try:
        browser.open(folder / "report.html")
        assert browser.run("return document.querySelectorAll('tbody tr:not([hidden])').length") == rows
        assert browser.run("return document.querySelectorAll('button:enabled:not(dialog *)').length") == 0
        assert browser.run("return document.querySelector('noscript').offsetHeight") > 0
        assert browser.run("return document.querySelector('.script').offsetHeight") == 0
    finally:
        browser.scripts(run=True)
