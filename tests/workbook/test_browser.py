"""The report in a browser: nothing fails, nothing is fetched, nothing is cut off.

Screenshots are kept in ``outputs/test-artifacts/``.
"""

from __future__ import annotations

import dataclasses
import functools
import http.server
import threading
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests.workbook import browser, run_folder
from workbook import chromium, paper, paths, report

pytestmark = pytest.mark.skipif(chromium.find() is None, reason=chromium.ABSENT)

ARTIFACTS = paths.root() / "outputs" / "test-artifacts"
PAGES = ("index.html", "notebooks/01_good.html", "notebooks/01_good-text.html")
WIDTHS = (400, 720, 980, 1400)
LINKS = "[...document.querySelectorAll('a[href]')].map(a => a.href)"
BROKEN = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
TOO_WIDE = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - innerWidth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run's folder under a name that an address must quote, with every part a report has."""
    made = run_folder.write(tmp_path_factory.mktemp("site") / "run of mine")
    with pytest.MonkeyPatch.context() as patch:
        claims = [dataclasses.replace(claim, notebook="01_good") for claim in paper.CLAIMS]
        patch.setattr(paper, "CLAIMS", claims)
        report.build(made, pdf=True)
    return made


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole_at_every_width(tab, folder, page, width):
    tab.size(width)
    tab.go((folder / page).as_uri())
    tab.picture(ARTIFACTS / f"{Path(page).stem}-{width}.png")
    assert tab.complaints() == []
    assert tab.value(BROKEN) == []
    assert tab.value(TOO_WIDE) <= 0
    inside = (folder.as_uri() + "/", "data:")
    assert [address for address in tab.asked() if not address.startswith(inside)] == []


def test_what_fails_is_noticed(tab, folder, tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<img src=absent.png><script>console.error('oh')</script>")
    tab.go(page.as_uri())
    assert len(tab.complaints()) >= 2
    assert len(tab.value(BROKEN)) == 1


@pytest.mark.parametrize("page", PAGES)
def test_every_link_resolves(tab, folder, page):
    tab.go((folder / page).as_uri())
    places = set(tab.value("[...document.querySelectorAll('[id]')].map(e => e.id)"))
    links = [urlparse(link) for link in tab.value(LINKS)]
    assert links
    for link in links:
        target = Path(unquote(link.path))
        assert link.scheme == "file"
        assert target.is_file(), link
        assert not link.fragment or (target == folder / page and link.fragment in places), link


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
