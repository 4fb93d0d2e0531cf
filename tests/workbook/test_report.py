"""The pages of a run: every link leads somewhere inside the folder, and nothing is fetched."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import nbformat
import pytest

from workbook import export, facts, notes, report, results, state, store
from workbook.context import notes_file, rows_file
from workbook.errors import WorkbookError

# Elements that HTML lets end by themselves; nbconvert leaves some of them open.
OPTIONAL = {"p", "li", "dt", "dd", "td", "th", "tr"}
VOID = {"meta", "link", "img", "br", "hr", "input"}
MACHINE = {
    "name": "Toy CPU, 2 cores",
    "cpu": {"model": "Toy CPU", "architecture": "toy64", "features": ["avx2"], "caches": None},
    "cores": {"physical": 2, "logical": 4, "affinity": [0, 1], "quota": None},
    "memory_bytes": 2**33,
    "os": "Toy OS",
    "python": "CPython 3.11",
    "packages": {"numpy": "2"},
    "git": {"revision": "0123456789abcdef", "dirty": True},
    "load": None,
}
BASE = {"notebook": "01_good", "model": "resnet18", "weights": "<own>", "trained": True, "batch": 1,
        "executor": "graph", "machine": "Toy CPU"}  # fmt: skip


class Page(HTMLParser):
    """Tags, ids and links of a page; unbalanced tags are an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.links += [given[name] for name in ("href", "src", "srcset", "data") if given.get(name)]
        if "id" in given:
            assert given["id"] not in self.ids, f"id {given['id']} twice"
            self.ids.add(given["id"])
        assert tag not in ("script", "iframe", "object", "embed")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open and tag not in VOID:
            while (inner := self.open.pop()) != tag:
                assert inner in OPTIONAL, f"<{inner}> is not closed before </{tag}>"


def _row(metric, value, unit, **change):
    return {**BASE, "metric": metric, "value": value, "unit": unit, **change}


ROWS = [
    _row("latency", 8.27, "ms", precision="w8a8", ci_low=8.1, ci_high=8.4, n=10),
    _row("top1", 94.05, "%", precision="w8a8", n=2000),
    _row("latency", 13.29, "ms", precision="fp32", batch=1),
    _row("latency", 99.0, "ms", precision="fp32", model="resnet50", trained=False),
]


def _notebook_files(folder: Path, name: str) -> None:
    node = nbformat.v4.new_notebook()
    node.cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("x = 1")]
    path = folder / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, path)
    export.export(path, name)


@pytest.fixture
def run(tmp_path):
    """Write a run's folder without running anything, and its report."""
    folder = tmp_path / "run of mine"
    current = state.State("2026-01-02T03:04:05+00:00", "quick", {"batch": "8"})
    error = {"name": "ValueError", "value": "no <b>way</b>", "cell": 3, "source": "raise <x>"}
    current.notebooks = {
        "01_good": state.Entry(state.OK, "Good & <fast>", {"batch": 8}, "f", 61.0),
        "02_fails": state.Entry(state.FAILED, "Fails", {}, "f", 2.0, error=error),
        "03_needs": state.Entry(state.SKIPPED, "Needs", reason="needs 02_fails, which failed"),
    }
    for name in ("01_good", "02_fails"):
        _notebook_files(folder, name)
        store.start(rows_file(folder, name))
    for row in ROWS:
        store.append(rows_file(folder, "01_good"), row)
    half = {**ROWS[0], "notebook": "02_fails", "value": 77.7}
    store.append(rows_file(folder, "02_fails"), half)
    said = notes_file(folder, "01_good")
    line = {"text": "8.27 < 13.29", "metrics": ["latency"], "where": {}}
    line["label"] = "partly untrained"
    notes.put(said, "headlines", "a", line)
    for suffix in ("png", "svg"):
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "figures" / f"01_good-bars.{suffix}").write_bytes(b"")
    figure = {"png": "01_good-bars.png", "svg": "01_good-bars.svg", "caption": "Bars. Toy; n = 10."}
    notes.put(said, "figures", "01_good-bars", figure)
    current.save(folder)
    results.merge(folder, current)
    about = {"machine": MACHINE, "load": {"before": [0.1, 0.2, 0.3], "after": None}}
    (folder / facts.FILE).write_text(json.dumps(about))
    return SimpleNamespace(folder=folder, page=Page(report.build(folder)))


def pages(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))


def test_every_link_leads_to_a_file_of_the_folder_or_a_place_on_the_page(run):
    assert len(pages(run.folder)) == 5
    for path in pages(run.folder):
        page = Page(path)
        assert page.links
        for link in page.links:
            if link.startswith("data:"):
                continue
            assert not re.match(r"[a-z]+:|//|/", link), f"{path.name} leads outside: {link}"
            target, _, place = link.partition("#")
            assert not place or place in page.ids, f"{path.name}: no place {link}"
            assert (path.parent / unquote(target)).exists() if target else place


def test_pages_fetch_nothing_and_name_no_absolute_path(run):
    for path in pages(run.folder):
        text = Page(path).text
        assert "@import" not in text
        assert not re.search(r"url\(\s*['\"]?(?!data:)", text)
        assert str(run.folder.parent) not in text


def test_links_hold_in_another_place(run, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.move(run.folder, moved)
    assert report.build(moved).read_text() == run.page.text


def test_all_is_closed_and_escaped(run):
    assert run.page.open == []
    assert "Good &amp; &lt;fast&gt;" in run.page.text
    assert "8.27 &lt; 13.29" in run.page.text
    assert "no &lt;b&gt;way&lt;/b&gt;" in run.page.text
    assert "&lt;own&gt; weights" in run.page.text


def visible(page: Page) -> str:
    body = page.text.split("</style>")[1]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_asked_machine_and_summary_are_said(run):
    text = visible(run.page)
    for part in ("Quick run", "Toy CPU, 2 cores", "2 January 2026, 03:04 UTC", "batch 8",
                 "revision 0123456789 with changes", "1 of 3 notebooks ran through, in 1 min 03 s",
                 "8.0 GiB", "0.10, 0.20, 0.30"):  # fmt: skip
        assert part in text, part


def test_failed_and_skipped_notebooks_say_why(run):
    text = visible(run.page)
    assert "2 of 3 notebooks gave no result" in text
    assert "ValueError in cell [3]" in text
    assert "needs 02_fails, which failed" in text


def test_failed_notebooks_rows_are_no_results(run):
    assert "77.7" not in run.page.text
    assert "77.7" not in (run.folder / "results.csv").read_text()


def table_rows(page: Page) -> list[str]:
    rows = re.findall(r"<tr>(.*?)</tr>", page.text, re.S)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)) for row in rows]


def test_no_speed_without_its_accuracy(run):
    (fast,) = [row for row in table_rows(run.page) if "8.27 ms" in row]
    assert "94.05% top-1" in fast
    (slow,) = [row for row in table_rows(run.page) if "13.3 ms" in row]
    assert "not measured" in slow


def test_untrained_is_labelled(run):
    (row,) = [row for row in table_rows(run.page) if "99.0 ms" in row]
    assert "untrained" in row
    caption = re.search(r"<caption>resnet50.*?</caption>", run.page.text, re.S)[0]
    assert "untrained" in caption
    assert "untrained" not in re.search(r"<caption>resnet18.*?</caption>", run.page.text, re.S)[0]
    assert "partly untrained" in visible(run.page)


def test_page_of_a_good_run_has_no_alarm(run):
    current = state.load(run.folder)
    current.notebooks = {"01_good": current.notebooks["01_good"]}
    current.save(run.folder)
    text = visible(Page(report.build(run.folder)))
    assert "gave no result" not in text
    assert "failed" not in text


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(WorkbookError, match="holds no run"):
        report.build(tmp_path)


def test_run_without_facts_is_refused(run):
    (run.folder / facts.FILE).unlink()
    with pytest.raises(WorkbookError, match=r"lacks run\.json"):
        report.build(run.folder)
