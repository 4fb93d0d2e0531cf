from __future__ import annotations

import json

import nbformat
import pytest

from workbook.catalogue import UNKNOWN, find, load, select
from workbook.errors import WorkbookError


@pytest.fixture
def folder(tmp_path, notebook):
    notebook(tmp_path, "01_fp32_compile")
    notebook(tmp_path, "02_naive_int8", needs=["03_graph_int8"])
    notebook(tmp_path, "03_graph_int8", needs=["01_fp32_compile"])
    notebook(tmp_path, "10_batch")
    return tmp_path


def test_titles_needs_and_parameters_are_read(folder):
    book = load(folder)["03_graph_int8"]
    assert book.title == "Question of 03_graph_int8"
    assert book.needs == ("01_fp32_compile",)
    assert book.parameters["batch"].default == 1
    assert book.parameters["model"].help == "the network"


def test_default_that_is_no_literal_is_unknown(tmp_path, notebook):
    notebook(tmp_path, "01_a", parameters="import os\nn = os.cpu_count()")
    assert load(tmp_path)["01_a"].parameters["n"].default is UNKNOWN


@pytest.mark.parametrize(
    "word", ["3", "03", "03_graph_int8", "graph_int8", "03_gr", "graph", "nb/03_graph_int8.ipynb"]
)
def test_ways_to_name_a_notebook(folder, word):
    assert find(load(folder), word) == "03_graph_int8"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("graf_int8", "did you mean '03_graph_int8'"),
        ("7", "unknown notebook '7': Known: 01_fp32_compile"),
    ],
)
def test_unknown_notebook_is_refused(folder, word, message):
    with pytest.raises(WorkbookError, match=message):
        find(load(folder), word)


def test_ambiguous_word_is_refused(folder, notebook):
    notebook(folder, "03_graph_int4")
    for word in ("03", "graph"):
        with pytest.raises(WorkbookError, match="may be any of 03_graph_int4, 03_graph_int8"):
            find(load(folder), word)


def test_needs_are_added_and_come_first(folder):
    names = [book.name for book in select(load(folder), ["2"])]
    assert names == ["01_fp32_compile", "03_graph_int8", "02_naive_int8"]


def test_no_words_mean_all_in_order(folder):
    names = [book.name for book in select(load(folder), [])]
    assert names == ["01_fp32_compile", "03_graph_int8", "02_naive_int8", "10_batch"]


def test_circle_is_refused(tmp_path, notebook):
    notebook(tmp_path, "01_a", needs=["02_b"])
    notebook(tmp_path, "02_b", needs=["01_a"])
    with pytest.raises(WorkbookError, match="in a circle"):
        load(tmp_path)


def test_unknown_need_is_refused(tmp_path, notebook):
    notebook(tmp_path, "01_compile")
    notebook(tmp_path, "02_b", needs=["01_compil"])
    with pytest.raises(WorkbookError, match=r"02_b needs '01_compil'.*did you mean '01_compile'"):
        load(tmp_path)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(WorkbookError, match="no notebooks in"):
        load(tmp_path)


def test_unreadable_notebook_is_named(tmp_path):
    (tmp_path / "01_a.ipynb").write_text("{}nonsense")
    with pytest.raises(WorkbookError, match=r"01_a\.ipynb is no readable notebook"):
        load(tmp_path)


def test_parameter_that_papermill_overlooks_is_refused(tmp_path, notebook):
    notebook(tmp_path, "01_a", parameters="batch = 1  # n = images")
    with pytest.raises(WorkbookError, match="papermill cannot read parameter 'batch'"):
        load(tmp_path)


def test_notebook_without_kernel_is_refused(tmp_path, notebook):
    path = notebook(tmp_path, "01_a")
    content = json.loads(path.read_text())
    del content["metadata"]["kernelspec"]
    path.write_text(json.dumps(content))
    with pytest.raises(WorkbookError, match="save it in JupyterLab"):
        load(tmp_path)


def test_interactive_notebook_is_run_only_where_it_is_named(tmp_path, notebook):
    notebook(tmp_path, "01_a", "x = 1")
    path = notebook(tmp_path, "explore", "x = 1")
    node = nbformat.read(path, as_version=4)
    node.metadata["workbook"] = {"interactive": True}
    nbformat.write(node, path)
    catalogue = load(tmp_path)
    assert [book.name for book in select(catalogue, [])] == ["01_a"]
    assert [book.name for book in select(catalogue, ["expl", "1"])] == ["01_a", "explore"]


def test_notebook_that_gathers_comes_last(tmp_path, notebook):
    notebook(tmp_path, "01_a", needs=["12_z"])
    notebook(tmp_path, "12_z")
    path = notebook(tmp_path, "10_report")
    node = nbformat.read(path, as_version=4)
    node.metadata["workbook"] = {"gathers": True}
    nbformat.write(node, path)
    assert [book.name for book in select(load(tmp_path), [])] == ["12_z", "01_a", "10_report"]
    assert [book.name for book in select(load(tmp_path), ["10"])] == ["10_report"]


def test_parameter_with_a_type_is_read_like_one_without(tmp_path, notebook):
    notebook(tmp_path, "01_a", parameters='batches: list[int] = [1, 8]  # images\nplain = "x"')
    found = load(tmp_path)["01_a"].parameters
    assert (found["batches"].default, found["batches"].help) == ([1, 8], "images")
    assert found["plain"].default == "x"
