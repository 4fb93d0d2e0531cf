"""One notebook through papermill, in this interpreter's kernel, watched cell by cell."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from workbook import paths
from workbook.catalogue import Notebook
from workbook.files import write_atomic

OnCell = Callable[[int, int], None]
ENGINE = "workbook"
KERNEL = "python3"


class WatchedEngine(NBClientEngine):
    """papermill's own engine, which also tells which cell it begins."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, on_cell=None, **kwargs):
        """Run the cells as papermill does; call ``on_cell(index, count)`` before each."""
        begin = nb_man.cell_start

        def watched(cell, cell_index=None, **inner):
            if on_cell is not None:
                on_cell(cell_index, len(nb_man.nb.cells))
            return begin(cell, cell_index, **inner)

        nb_man.cell_start = watched
        return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)


papermill_engines.register(ENGINE, WatchedEngine)


def execute(
    notebook: Notebook,
    folder: Path,
    parameters: Mapping[str, Any],
    on_cell: OnCell | None = None,
) -> dict[str, Any] | None:
    """Run one notebook and save it, with its error if it has one, under ``notebooks/``.

    Parameters
    ----------
    notebook : Notebook
    folder : pathlib.Path
        The run's folder.
    parameters : mapping
        To inject behind its ``parameters`` cell.
    on_cell : callable, optional
        Called with the index of the cell that begins and the count of cells.

    Returns
    -------
    dict or None
        None where it ran through; else the error: ``name``, ``value``, ``cell``, ``source``.
    """
    output = executed_file(folder, notebook.name)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _environment(notebook.name, folder):
            _through_papermill(notebook, output, parameters, on_cell)
    except PapermillExecutionError as error:
        return _error(error.ename, error.evalue, error.exec_count, error.source)
    except DeadKernelError:
        hint = "the kernel died: out of memory, or a crash in compiled code (see the terminal)"
        return _error("DeadKernelError", hint, None, "")
    except Exception as error:
        # papermill itself gave up, on a notebook it cannot write say: a failure like any other.
        return _error(type(error).__name__, str(error), None, "")
    finally:
        tidy(output)
    return None


def _through_papermill(
    notebook: Notebook, output: Path, parameters: Mapping[str, Any], on_cell: OnCell | None
) -> None:
    papermill.execute_notebook(
        str(notebook.path),
        str(output),
        parameters=dict(parameters),
        engine_name=ENGINE,
        kernel_name=KERNEL,
        progress_bar=False,
        cwd=str(paths.root()),
        on_cell=on_cell,
        # The kernel's own log, not the notebook's: it calls every shutdown an error.
        extra_arguments=["--Application.log_level=50"],
    )


def executed_file(folder: Path, name: str) -> Path:
    """Return where an executed notebook lies in a run's folder."""
    return folder / "notebooks" / f"{name}.ipynb"


def tidy(path: Path) -> None:
    """Take absolute paths out of an executed notebook, in place: metadata, text outputs."""
    if not path.is_file():
        return
    node = nbformat.read(path, as_version=4)
    about = node.metadata.get("papermill", {})
    for key in ("input_path", "output_path"):
        if about.get(key):
            about[key] = Path(about[key]).name
    for cell in node.cells:
        for output in cell.get("outputs", []):
            _shorten(output)
    write_atomic(path, nbformat.writes(node))


def _shorten(output: nbformat.NotebookNode) -> None:
    for key in ("text", "evalue"):
        if key in output:
            output[key] = paths.without_folders(output[key])
    if "traceback" in output:
        output.traceback = [paths.without_folders(line) for line in output.traceback]
    for mime, content in output.get("data", {}).items():
        if mime.startswith("text/") and isinstance(content, str):
            output.data[mime] = paths.without_folders(content)


def _error(name: str, value: str, cell: int | None, source: str) -> dict[str, Any]:
    return {"name": name, "value": paths.without_folders(value), "cell": cell, "source": source}


@contextlib.contextmanager
def _environment(name: str, folder: Path) -> Iterator[None]:
    """Tell the kernel its run, and make ``python3`` mean the interpreter that runs this.

    A user's own kernel of that name would win over this environment's, and run the notebook with
    other packages.
    """
    with tempfile.TemporaryDirectory(prefix="workbook-") as scratch:
        spec = Path(scratch) / "kernels" / KERNEL / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps(get_kernel_dict()), encoding="utf-8")
        search = [scratch, os.environ.get("JUPYTER_PATH", "")]
        changes = {
            "JUPYTER_PATH": os.pathsep.join(part for part in search if part),
            paths.RUN_VARIABLE: str(folder.resolve()),
            paths.NOTEBOOK_VARIABLE: name,
        }
        before = {key: os.environ.get(key) for key in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value
