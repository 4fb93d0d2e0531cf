"""The pages of a run: every link leads somewhere inside the folder, and nothing is fetched."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

from tests.workbook import run_folder
from workbook import chromium, cli, export, facts, report, state
from workbook.errors import WorkbookError
from workbook.execute import executed_file

# Elements that HTML lets end by themselves; nbconvert leaves some of them open.
OPTIONAL = {"p", "li", "dt", "dd", "td", "th", "tr"}
VOID = {"meta", "link", "img", "br", "hr", "input"}


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


@pytest.fixture
def run(tmp_path):
    """A run's folder, and its report."""
    folder = run_folder.write(tmp_path / "run of mine")
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


def test_notebooks_link_to_the_same_kind_of_page_of_those_that_were_run(run):
    books = run.folder / "notebooks"
    assert "02_fails.html" in Page(books / "01_good.html").links
    assert "02_fails-text.html" in Page(books / "01_good-text.html").links
    # The notebook that was skipped has no page: its words stay, and lead nowhere.
    assert '<a data-notebook="03_needs">needs</a>' in Page(books / "01_good.html").text


def test_links_follow_the_pages_that_there_are(run):
    book, needed = (executed_file(run.folder, name) for name in ("01_good", "03_needs"))
    for page, other in zip(export.pages_of(needed), export.pages_of(book), strict=True):
        shutil.copy(other, page)
    report.build(run.folder)
    assert "03_needs.html" in Page(export.pages_of(book)[0]).links
    for page in export.pages_of(needed):
        page.unlink()
    report.build(run.folder)
    assert "03_needs.html" not in Page(export.pages_of(book)[0]).links


def test_downloads_are_results_environment_figures_and_tables(run):
    wanted = {"results.csv", "run.json", "requirements.txt", "tables/01_good-times.csv",
              "figures/01_good-bars.png", "figures/01_good-bars.svg"}  # fmt: skip
    assert wanted <= set(run.page.links)
    pins = (run.folder / "requirements.txt").read_text()
    assert "numpy==2\n" in pins
    assert "relaxquant at revision 0123456789abcdef+" in pins


def test_pdf_of_an_earlier_page_is_removed(run):
    (run.folder / report.PDF).write_bytes(b"%PDF of before")
    assert report.PDF not in Page(report.build(run.folder)).links
    assert not (run.folder / report.PDF).exists()


def test_without_chromium_the_pdf_is_left_out_with_one_line(run, monkeypatch):
    monkeypatch.setattr(chromium, "find", lambda: None)
    ended = CliRunner().invoke(cli.main, ["report", str(run.folder)])
    assert ended.exit_code == 0
    assert "PDF: left out, no Chromium" in ended.output
    asked = CliRunner().invoke(cli.main, ["report", str(run.folder), "--pdf"])
    assert asked.exit_code == 2
    assert "no Chromium" in asked.stderr
    # The page that is left does not link to a PDF that could not be printed.
    assert report.PDF not in Page(run.folder / report.FILE).links


def test_report_writes_the_notebooks_pages_again(run):
    page = run.folder / "notebooks" / "01_good.html"
    page.write_text("from an older template")
    report.export_again(run.folder)
    assert "<h1" in page.read_text()


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
