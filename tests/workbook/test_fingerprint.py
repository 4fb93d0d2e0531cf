from __future__ import annotations

import nbformat
import pytest

from workbook import fingerprint, paths, reached
from workbook.catalogue import load


def of(folder, parameters=None, needs=(), code="code"):
    return fingerprint.of_notebook(load(folder)["01_a"], parameters or {}, needs, code)


def test_same_notebook_same_fingerprint(tmp_path, notebook):
    path = notebook(tmp_path, "01_a", "x = 1")
    before = of(tmp_path)
    node = nbformat.read(path, as_version=4)
    node.cells[-1].outputs = [nbformat.v4.new_output("stream", text="1")]
    node.cells[-1].execution_count = 7
    nbformat.write(node, path)
    assert of(tmp_path) == before


def test_source_parameters_needs_and_code_count(tmp_path, notebook):
    notebook(tmp_path, "01_a", "x = 1")
    seen = {of(tmp_path), of(tmp_path, {"batch": 8}), of(tmp_path, needs=["a"])}
    seen |= {of(tmp_path, needs=["b"]), of(tmp_path, code="other")}
    notebook(tmp_path, "01_a", "x = 2")
    seen.add(of(tmp_path))
    assert len(seen) == 6


@pytest.fixture
def checkout(tmp_path):
    for name in (
        "relaxquant/lower/conv.py",
        "data/published/table1.csv",
        "workbook/store.py",
        "workbook/runner.py",
        "helpers.py",
        "README.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    (tmp_path / "helpers.py").write_text("from workbook import store")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("relaxquant/lower/conv.py", True),
        ("relaxquant/new.py", True),
        ("data/published/table1.csv", True),
        ("helpers.py", True),
        ("workbook/store.py", True),
        ("workbook/runner.py", False),
        ("README.md", False),
        ("relaxquant/__pycache__/conv.pyc", False),
        ("data/.hidden", False),
    ],
)
def test_which_files_count(checkout, name, counts):
    before = fingerprint.of_code(checkout)
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).write_text("new")
    assert (fingerprint.of_code(checkout) != before) is counts


def test_moved_content_counts(checkout):
    before = fingerprint.of_code(checkout)
    (checkout / "relaxquant/lower/conv.py").rename(checkout / "relaxquant/lower/dense.py")
    assert fingerprint.of_code(checkout) != before


def test_package_versions_count(checkout, monkeypatch):
    before = fingerprint.of_code(checkout)
    monkeypatch.setattr(fingerprint, "_version", lambda package: "9.9")
    assert fingerprint.of_code(checkout) != before


def test_modules_that_its_cells_reach_count(checkout, notebook, monkeypatch):
    monkeypatch.setattr(paths, "root", lambda: checkout)
    (checkout / "workbook" / "bars.py").write_text("import workbook.ink")
    notebook(checkout / "nb", "01_a", "from workbook import bars")
    before = of(checkout / "nb")
    (checkout / "workbook" / "runner.py").write_text("new")
    assert of(checkout / "nb") == before
    (checkout / "workbook" / "ink.py").write_text("new")
    assert of(checkout / "nb") != before


def test_what_helpers_reach_is_there():
    text = (paths.root() / "helpers.py").read_text()
    names = {path.stem for path in reached.modules([text], paths.root())}
    assert {"context", "figures", "notes", "store", "tables", "threads"} <= names
