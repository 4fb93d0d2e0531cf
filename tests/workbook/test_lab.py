"""Notebooks in JupyterLab, as a user has them: opened, run from the menu, read, played with.

What a user changes lies in a copy of the checkout; screenshots are kept as those of the report.
"""

from __future__ import annotations

import json
import shutil

import pytest

from tests.workbook import browser, lab
from tests.workbook.test_browser import ARTIFACTS
from workbook import chromium

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.find() is None, reason=chromium.ABSENT),
    pytest.mark.skipif(not shutil.which("make"), reason="make is not installed"),
]

SMALL_GRAPH = """\
profile = "quick"
model = "resnet18_cifar10"
weights = ""
accuracy_models = ["resnet18_cifar10"]
pictures_model = "resnet18_cifar10"
batch = 1
target = "native"
schedule = "nchw_spatial_pack"
threads = 2
rounds = 10
calibration = 10
images = 20
seed = 0"""
SMALL_EXPLORE = """\
profile = "quick"
model = "resnet18_cifar10"
width = "w8a8"
schedule = "auto"
batch = 1
target = "native"
threads = 2
rounds = 10
calibration = 4
images = 8
seed = 0"""
RATES = "document.querySelector('img[alt^=\"GMAC/s of each layer\"]')"
PANEL = "document.querySelector('.jp-OutputArea-output .widget-vbox')"
STATUS = f"{PANEL}.querySelector('.widget-hbox .widget-html').innerText.trim()"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return lab.copy(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def address(checkout):
    with lab.started(checkout, checkout.parent / "home") as found:
        yield found


@pytest.fixture
def tab(tmp_path):
    with browser.opened(tmp_path / "profile") as opened:
        opened.size(1400, 1000)
        yield opened
        outside = [a for a in opened.asked() if not a.startswith(("http://127.0.0.1:", "data:"))]
        assert outside == []
        assert opened.complaints() == []


def open_in(tab, address, checkout, name):
    return lab.Notebook(tab, address, checkout / "notebooks" / f"{name}.ipynb")


def outputs(cells, kind):
    shown = [output for cell in cells for output in cell.outputs]
    return [each for each in shown if kind in (each.output_type, *each.get("data", ()))]


def control(label, what):
    """Return the part of the panel's widget of that name that takes the keyboard."""
    labels = f"[...{PANEL}.querySelectorAll('.widget-label')]"
    return f"{labels}.find(e => e.textContent == '{label}').parentElement.querySelector('{what}')"


def test_lab_opens_in_the_notebooks_and_asks_nothing(tab, address):
    tab.go(address)
    listed = "document.querySelector('.jp-DirListing-content')"
    tab.until(f"{listed}?.innerText.includes('explore.ipynb')")
    assert tab.value("document.querySelector('.jp-BreadCrumbs').innerText") == "/notebooks/"
    # Whether it asks if news are wanted, which it would do a few seconds from now.
    setting = "/lab/api/settings/@jupyterlab/apputils-extension:notification"
    schema = f"fetch('{setting}').then(r => r.json()).then(s => s.schema.properties)"
    assert tab.value(f"{schema}.then(p => p.fetchNews.default)") == "false"
    assert tab.value("document.querySelectorAll('.jp-Dialog, .Toastify__toast').length") == 0
    tab.picture(ARTIFACTS / "lab-start.png")


def test_graph_int8_runs_to_its_figures(tab, address, checkout):
    notebook = open_in(tab, address, checkout, "03_graph_int8")
    notebook.set_parameters(SMALL_GRAPH)
    notebook.run_all()
    cells = notebook.saved()
    assert cells[0].source == SMALL_GRAPH
    assert outputs(cells, "error") == []
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert len(outputs(cells, "image/png")) == 3
    tab.centre("document.querySelector('.jp-RenderedImage img')")
    tab.picture(ARTIFACTS / "lab-03_graph_int8.png")
    shown = "[...document.querySelectorAll('.jp-RenderedImage img')].map(i => i.naturalWidth)"
    assert min(tab.value(shown)) > 500
    kept = checkout / "outputs" / "interactive" / "figures"
    assert len(list(kept.glob("03_graph_int8-*.png"))) == 3


def test_explore_changes_its_figure_with_slider_and_dropdown(tab, address, checkout):
    notebook = open_in(tab, address, checkout, "explore")
    notebook.set_parameters(SMALL_EXPLORE)
    notebook.run_all()
    assert outputs(notebook.saved(), "error") == []
    tab.centre(RATES)
    tab.picture(ARTIFACTS / "lab-explore-w8a8.png")
    for label, what, keys, shown in (
        ("bits", ".noUi-handle", ["ArrowRight"], "w6a6"),
        ("layer", "select", ["ArrowDown", "Enter"], "µs, "),
    ):
        tab.until(f"{STATUS} == ''", lab.RUN_SECONDS)
        before = tab.value(f"{RATES}.src")
        tab.focus(control(label, what))
        for key in keys:
            tab.press(key)
        tab.until(f"{RATES}.src != {json.dumps(before)}", lab.RUN_SECONDS)
        tab.until(f"{PANEL}.innerText.includes('{shown}')")
        tab.picture(ARTIFACTS / f"lab-explore-{label}.png")
