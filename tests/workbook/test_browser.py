"""The pages of runs, sweeps and comparisons in a browser: nothing fails, is fetched or cut off.

Screenshots are kept in ``outputs/test-artifacts/``.
"""

from __future__ import annotations

import dataclasses
import functools
import http.server
import itertools
import threading
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests.workbook import browser, run_folder
from workbook import chromium, compare, compare_report, paper, paths, report, store, sweep_report
from workbook.sweep_state import FAILED, OK, WAITING, Item, Sweep

pytestmark = pytest.mark.skipif(chromium.find() is None, reason=chromium.ABSENT)

ARTIFACTS = paths.root() / "outputs" / "test-artifacts"
RUN = "run of mine"  # a name that an address must quote
SWEEP = "sweep"
COMPARISON = "compare-run of mine-later.html"
PAGES = (
    *(f"{RUN}/{file}" for file in
      ("index.html", "notebooks/01_good.html", "notebooks/01_good-text.html")),
    f"{SWEEP}/index.html",
    COMPARISON,
)  # fmt: skip
WIDTHS = (400, 720, 980, 1400)
LINKS = "[...document.querySelectorAll('a[href]')].map(a => a.href)"
BROKEN = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
# Not to be compared with innerWidth, which on a phone grows with what it has to show.
REACH = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"


# Texts with less contrast than 4.5, WCAG's AA: https://www.w3.org/TR/WCAG22/#contrast-minimum
FAINT = """(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) =>
    0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const paper = e => {
    for (; e; e = e.parentElement) {
      const found = numbers(getComputedStyle(e).backgroundColor);
      if (found.length == 3 || found[3] == 1) return found;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = new Set();
  for (let text; text = texts.nextNode();) {
    const e = text.parentElement;
    if (!text.data.trim() || !e.getClientRects().length) continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(paper(e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.add(`${contrast.toFixed(1)}: ${text.data.trim().slice(0, 40)}`);
  }
  return [...faint];
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A run with every part a report has, a sweep with items of every kind, and a comparison."""
    made = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        claims = [dataclasses.replace(claim, notebook="01_good") for claim in paper.CLAIMS]
        patch.setattr(paper, "CLAIMS", claims)
        report.build(run_folder.write(made / RUN), pdf=True)
    _sweep(made / SWEEP)
    _comparison(made)
    return made


def _sweep(folder):
    """Three items: one that ran through, one that failed with a long reason, one to come."""
    long = "a reason of many words, " * 8 + "/and/a/path/without/any/place/to/break/" * 4
    items = {
        f"0{batch}": Item("01_good", "quick", {"batch": str(batch), "model": "resnet18"}, **said)
        for batch, said in (
            (1, {"status": OK, "attempts": 1, "seconds": 61.0, "where": "host-1"}),
            (2, {"status": FAILED, "attempts": 3, "where": "host-2", "reason": long}),
            (3, {"status": WAITING}),
        )
    }
    report.build(run_folder.write(folder / "items" / "01"))
    (folder / "items" / "02").mkdir()
    (folder / "items" / "02" / "log.txt").write_text("said\n")
    given = [("batch", "1,2,3"), ("model", "resnet18")]
    asked = {"words": ["01"], "profile": "quick", "given": given}
    sweep_report.build(folder, Sweep("2026-01-02T03:04:05+00:00", [asked], items))


def _comparison(made):
    """The run against a later one, in which one row changed, one is gone and one is new."""
    later = run_folder.write(made / "later")
    rows = store.read(later / "results.csv")
    (later / "results.csv").unlink()
    store.start(later / "results.csv")
    for row in rows[1:-1]:
        store.append(later / "results.csv", row)
    slower = {**rows[0], "value": 2 * rows[0]["value"], "ci_low": 16.0, "ci_high": 17.0}
    for row in (slower, {**rows[1], "batch": 8}):
        store.append(later / "results.csv", row)
    compare_report.write(compare.compare(made / RUN, later), made / COMPARISON)


@pytest.fixture(scope="module")
def folder(site):
    return site / RUN


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole_at_every_width(tab, site, page, width):
    tab.size(width)
    tab.go((site / page).as_uri())
    tab.picture(ARTIFACTS / f"{_name(page)}-{width}.png")
    assert tab.complaints() == []
    assert tab.value(BROKEN) == []
    assert tab.value(REACH) <= width
    inside = (site.as_uri() + "/", "data:")
    assert [address for address in tab.asked() if not address.startswith(inside)] == []


def _name(page):
    """Return a file name for a page's screenshots: what the page is, without the run's name."""
    return page.removeprefix(f"{RUN}/").removesuffix(".html").replace("/", "-").split(" of")[0]


def test_what_fails_is_noticed(tab, folder, tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<img src=absent.png><script>console.error('oh')</script>")
    tab.go(page.as_uri())
    assert len(tab.complaints()) >= 2
    assert len(tab.value(BROKEN)) == 1
    tab.size(400)
    page.write_text("<meta name=viewport content='width=device-width'><p style='width:500px'>Wide")
    tab.go(page.as_uri())
    assert tab.value(REACH) >= 500
    page.write_text("<p style='color:#999;background:#fff'>Faint</p><p>Plain</p>")
    tab.go(page.as_uri())
    assert tab.value(FAINT) == ["2.8: Faint"]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_resolves(tab, site, page):
    tab.go((site / page).as_uri())
    places = set(tab.value("[...document.querySelectorAll('[id]')].map(e => e.id)"))
    links = [urlparse(link) for link in tab.value(LINKS)]
    assert links or page == COMPARISON
    for link in links:
        target = Path(unquote(link.path))
        assert link.scheme == "file"
        assert target.is_file(), link
        assert not link.fragment or (target == site / page and link.fragment in places), link


@pytest.mark.parametrize("page", PAGES)
def test_a_screen_reader_finds_its_way(tab, site, page):
    tab.go((site / page).as_uri())
    assert tab.value("document.documentElement.lang") == "en"
    assert tab.value("document.title.trim().length") > 0
    assert tab.value("document.querySelectorAll('main').length") == 1
    headings = "document.querySelectorAll('h1,h2,h3,h4,h5,h6')"
    levels = tab.value(f"[...{headings}].map(heading => +heading.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in itertools.pairwise(levels)), levels
    assert tab.value("[...document.images].filter(i => !i.alt.trim()).map(i => i.src)") == []
    named = "a.textContent.trim() || a.querySelector('img[alt]')"
    assert tab.value(f"[...document.links].filter(a => !({named})).map(a => a.href)") == []
    unscoped = "[...document.querySelectorAll('table.results th')].filter(h => !h.scope).length"
    assert tab.value(unscoped) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_text_stands_out_from_its_paper(tab, site, page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    tab.call("Emulation.setEmulatedMedia", media="screen", features=features)
    tab.go((site / page).as_uri())
    faint = tab.value(FAINT)
    tab.call("Emulation.setEmulatedMedia", media="", features=[])
    assert faint == []


def test_static_host_serves_it_as_it_lies(tab, folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab.go(f"http://127.0.0.1:{server.server_port}/")
        assert tab.complaints() == []
        assert tab.value(BROKEN) == []
        assert len(tab.asked()) > 1
        server.shutdown()


def test_dark_paper_for_who_asks_for_it_and_never_in_print(tab, folder):
    tab.size(720)  # what A4 leaves between its margins
    tab.go((folder / "index.html").as_uri())
    paper = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.call("Emulation.setEmulatedMedia", media=media, features=features)
        seen[media, scheme] = tab.value(paper)
        tab.picture(ARTIFACTS / f"index-{media}-{scheme}.png")
    tab.call("Emulation.setEmulatedMedia", media="", features=[])
    assert seen["screen", "light"] == seen["print", "dark"] == "rgb(255, 255, 255)"
    assert seen["screen", "dark"] != seen["screen", "light"]


def test_pdf_is_printed_and_linked(folder):
    assert (folder / report.PDF).read_bytes().startswith(b"%PDF")
    assert f'href="{report.PDF}"' in (folder / report.FILE).read_text()
