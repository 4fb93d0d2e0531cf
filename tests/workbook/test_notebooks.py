"""What holds of every notebook, and two of them run without a screen."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest

from workbook import catalogue, context, headline, notes, paths, store

FOLDER = paths.root() / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
READING = [path for path in NOTEBOOKS if path.stem[:2].isdigit()]
LONGEST_CELL, LONGEST_FUNCTION = 15, 10
LINK = re.compile(r"\]\(([\w-]+)\.ipynb\)")
# A figure with a unit, such as only a run may say: "3.5x", "12 ms", "40 % faster".
UNITS = r"(×|%|GMAC/s|images/s|(x|ms|us|µs|points|times)\b)"
CLAIM = re.compile(r"(?<![\w-])\d[\d.,]*\s*" + UNITS)

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def cells(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == kind]


def parameters_cell(path: Path) -> str:
    (source,) = [c.source for c in read(path).cells if "parameters" in c.metadata.get("tags", [])]
    return source


@every
def test_is_valid_and_carries_no_outputs(path):
    node = read(path)
    nbformat.validate(node)
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code if cell.outputs or cell.execution_count] == []
    assert node.metadata.kernelspec.name == "python3"


@every
def test_parameters_are_lines_with_type_literal_and_help(path):
    for line in parameters_cell(path).splitlines():
        found = re.fullmatch(r"\w+: (str|int|float|bool|list\[\w+\]) = (.+?)  # \S.+", line)
        assert found, f"{line}: write it as name: type = value  # help"
        value = ast.literal_eval(found[2])
        assert type(value).__name__ == found[1].partition("[")[0]
        if isinstance(value, list):
            assert {f"list[{type(element).__name__}]" for element in value} <= {found[1]}


@every
def test_papermill_lists_every_parameter_with_type_and_help(path):
    listed = papermill.inspect_notebook(str(path))
    names = [statement.target.id for statement in ast.parse(parameters_cell(path)).body]
    assert list(listed) == names
    assert [name for name, entry in listed.items() if not entry["help"]] == []
    assert {entry["inferred_type_name"] for entry in listed.values()} <= {
        "str", "int", "float", "bool", "list[str]", "list[int]",
    }  # fmt: skip
    assert listed["profile"]["default"] == '"quick"'


@every
def test_start_is_told_every_parameter(path):
    calls = [
        node
        for source in cells(path, "code")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "h.start"
    ]
    (start,) = calls
    assert start.args[0].value == path.stem
    told = {keyword.arg: ast.unparse(keyword.value) for keyword in start.keywords}
    assert told == {name: name for name in papermill.inspect_notebook(str(path))}


@every
def test_cells_and_functions_are_short(path):
    for source in cells(path, "code"):
        assert len(source.splitlines()) <= LONGEST_CELL, source
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno <= LONGEST_FUNCTION, node.name


@every
def test_names_no_absolute_path_and_no_machine(path):
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|opt|Users)/|[A-Z]:\\\\", text)
    assert found == []


@every
def test_opens_with_its_question_and_closes_with_its_answer(path):
    kinds = [(cell.cell_type, cell.source) for cell in read(path).cells]
    kind, first = kinds[0]
    title, _, rest = first.partition("\n\n")
    assert kind == "markdown"
    assert re.fullmatch(r"# (\d\d · )?[A-Z][^\n]+", title)
    assert rest.startswith("**Question.**")
    assert "?" in rest.partition("\n\n")[0]
    headings = [
        i for i, (kind, text) in enumerate(kinds) if kind == "markdown" and "\n## " in f"\n{text}"
    ]
    assert kinds[headings[-1]][1].startswith("## Answer")
    answer = "\n".join(text for kind, text in kinds[headings[-1] + 1 :] if kind == "code")
    assert "run.headline(" in answer or "h.say(" in answer


@every
def test_links_lead_to_notebooks(path):
    linked = {name for source in cells(path, "markdown") for name in LINK.findall(source)}
    linked |= {name for source in cells(path, "code") for name in LINK.findall(source)}
    assert {name for name in linked if not (FOLDER / f"{name}.ipynb").is_file()} == set()


def chain() -> list[str]:
    """Names of the notebooks as their answers lead from one to the next."""
    found = [READING[0].stem]
    while found[-1] in {path.stem for path in READING} and len(found) <= len(READING):
        answer = [t for t in cells(FOLDER / f"{found[-1]}.ipynb", "markdown") if "## Answer" in t][
            -1
        ]
        found += LINK.findall(answer.partition("Next: ")[2])[:1] or [""]
    return found


def test_links_form_the_order_of_reading():
    *numbered, last = chain()
    assert sorted(numbered) == [path.stem for path in READING]
    assert last == "explore"
    start = "\n".join(cells(READING[0], "markdown"))
    table = [LINK.findall(line)[0] for line in start.splitlines() if line.startswith("| [")]
    assert table == numbered[1:]


def test_readme_lists_the_notebooks_with_their_questions():
    text = (paths.root() / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\(notebooks/(\w+)\.ipynb\) \| \S", text, re.M)
    assert listed == [(path.stem, path.stem) for path in READING]


@every
def test_prose_claims_no_figure_of_a_run(path):
    claims = [found[0] for source in cells(path, "markdown") for found in CLAIM.finditer(source)]
    assert claims == []


@every
def test_figures_say_how_many_samples_they_show(path):
    for source in cells(path, "code"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "run.figure":
                assert {"caption", "n"} <= {keyword.arg for keyword in node.keywords}, source


# Captions of what shows no network's result, or whose lines label their networks by themselves, as
# those of 10_report do. A .tflite file, of 08, is never random.
NO_RESULT = re.compile(
    "The machine and|Limits of|Published|Which stages|The first stage|Every stage|Top-1 of fp32 and"
    "|One layer, |The first words of|What a warp.s tile"
)
LABELLED_ELSEWHERE = ("08_tflite_accuracy", "10_report")


@pytest.mark.parametrize(
    "path", [p for p in READING if p.stem not in LABELLED_ELSEWHERE], ids=lambda path: path.stem
)
def test_results_are_told_whose_they_are_so_that_random_weights_are_said(path):
    for source in cells(path, "code"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("run.table", "run.figure"):
                told = "of" in {keyword.arg for keyword in node.keywords}
                assert told or NO_RESULT.search(source), ast.unparse(node)


@every
def test_needs_and_kinds_are_known(path):
    book = catalogue.load(FOLDER)[path.stem]
    assert set(read(path).metadata.get("workbook", {})) <= {"needs", "interactive", "gathers"}
    assert book.title == cells(path, "markdown")[0].splitlines()[0].lstrip("# ")


@pytest.fixture(scope="module")
def headless(tmp_path_factory, start_run):
    """Run 00 and 10 into one folder, with random weights and images: no registry is asked."""
    home = tmp_path_factory.mktemp("headless")
    given = {"calibration": "8", "images": "4", "threads": "1", "model": "resnet18_cifar10"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAXQUANT_CACHE", str(home / "cache"))
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("npm_config_registry", "http://127.0.0.1:9")
        outcome = start_run(FOLDER, "00", "10", given=given, out=home / "run").outcome
    errors = {name: entry.error for name, entry in outcome.state.notebooks.items() if entry.error}
    assert errors == {}
    return outcome.folder


def only(rows, **equal):
    (row,) = [row for row in rows if all(row[column] == value for column, value in equal.items())]
    return row


@pytest.mark.slow
def test_start_here_measures_what_it_says(headless):
    rows = store.read(headless / "results.csv")
    ours = {"precision": "w8a8", "executor": "graph"}
    assert only(rows, metric="integer_macs", **ours)["value"] == 100
    assert only(rows, metric="integer_macs", executor="naive")["value"] == 0
    assert only(rows, metric="integer_macs", precision="fp32")["value"] == 0
    assert only(rows, metric="speedup")["n"] == 10
    assert [row["n"] for row in rows if row["metric"] == "latency"] == [10, 10, 10]
    assert only(rows, metric="agreement", **ours)["n"] == 4
    assert {row["trained"] for row in rows} == {False}


@pytest.mark.slow
def test_every_caption_says_that_the_weights_are_random(headless):
    said = notes.read(context.notes_file(headless, "00_start_here"))
    captions = [each["caption"] for kind in ("tables", "figures") for each in said[kind]]
    untrained = [caption for caption in captions if "(untrained weights)" in caption]
    assert len(untrained) == len(captions) - 1 == 3  # all but the one of the machine


@pytest.mark.slow
def test_intervals_hold_their_values(headless):
    rows = store.read(headless / "results.csv")
    bounded = [row for row in rows if row["ci_low"] is not None]
    assert {row["metric"] for row in bounded} >= {"latency", "speedup", "agreement"}
    assert [r for r in bounded if not r["ci_low"] <= r["value"] <= r["ci_high"]] == []


@pytest.mark.slow
def test_report_tells_the_rows_of_its_run(headless):
    (said,) = notes.read(context.notes_file(headless, "10_report"))["headlines"]
    speedup = only(store.read(headless / "results.csv"), metric="speedup")
    assert headline.cell(speedup).value in said["text"]
    assert "untrained" in said["text"]
    assert "100 % of its multiply-accumulates in integers" in said["text"]
    assert (headless / "figures" / "10_report-gain.png").is_file()
    page = (headless / "notebooks" / "10_report-text.html").read_text(encoding="utf-8")
    assert "Not in this run" in page
    assert "None of the paper's ratios" in page


@pytest.mark.slow
def test_report_alone_says_what_to_run_first(tmp_path, start_run):
    outcome = start_run(FOLDER, "10", out=tmp_path / "run").outcome
    assert outcome.code == 0
    page = (outcome.folder / "notebooks" / "10_report-text.html").read_text(encoding="utf-8")
    assert "Nothing has been measured in this run yet" in page
    assert "make run" in page
