"""The notebooks there are: their titles, their parameters, what they need, in which order."""

from __future__ import annotations

import ast
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import nbformat
import papermill

from workbook.errors import WorkbookError, hint

UNKNOWN = object()


@dataclass(frozen=True)
class Parameter:
    """One name of a notebook's ``parameters`` cell.

    Attributes
    ----------
    name : str
    default : object
        The default's value; `UNKNOWN` where it is no literal.
    source : str
        The default as it is written.
    help : str
        The comment behind it.
    """

    name: str
    default: Any
    source: str
    help: str


@dataclass(frozen=True)
class Notebook:
    """One notebook as it lies in the notebooks' folder.

    Attributes
    ----------
    name : str
        File name without suffix.
    path : pathlib.Path
    title : str
        Its first heading.
    needs : tuple of str
        Names of the notebooks whose results it reads (metadata ``workbook: {"needs": [...]}``).
    parameters : dict
        Name -> `Parameter`.
    sources : tuple of (str, str)
        Type and source of every cell: what makes it this notebook and not another.
    interactive : bool
        Whether it is for JupyterLab (metadata ``workbook: {"interactive": true}``), and is run
        without a screen only where it is named.
    gathers : bool
        Whether it reads what the other notebooks of its run left, whichever those are (metadata
        ``workbook: {"gathers": true}``): it is run last, and again when any of that changed.
    """

    name: str
    path: Path
    title: str
    needs: tuple[str, ...]
    parameters: dict[str, Parameter]
    sources: tuple[tuple[str, str], ...]
    interactive: bool = False
    gathers: bool = False


def load(folder: Path) -> dict[str, Notebook]:
    """Read every notebook of a folder.

    Returns
    -------
    dict
        Name -> `Notebook`, by name.

    Raises
    ------
    WorkbookError
        Where there is no notebook, one does not parse, one needs an unknown one, or the needs go
        in a circle.
    """
    files = sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))
    if not files:
        raise WorkbookError(f"no notebooks in {folder}: run this from the checkout")
    catalogue = {path.stem: _read(path) for path in files}
    for notebook in catalogue.values():
        for need in notebook.needs:
            if need not in catalogue:
                raise WorkbookError(
                    f"{notebook.name} needs {need!r}, which is no notebook here: "
                    f"{hint(need, catalogue)}"
                )
    _ordered(catalogue)
    return catalogue


def find(catalogue: dict[str, Notebook], word: str) -> str:
    """Return the name that a word means: its number, the part behind it, or a start.

    Raises
    ------
    WorkbookError
        Where no notebook or more than one is meant.
    """
    word = word.removesuffix(".ipynb").rsplit("/", 1)[-1]
    if word in catalogue:
        return word
    number = word.zfill(2) if word.isdigit() else word
    found = [name for name in catalogue if number in name.split("_", 1)]
    found = found or [name for name in catalogue if _begins(name, number)]
    if len(found) == 1:
        return found[0]
    if found:
        raise WorkbookError(f"{word!r} may be any of {', '.join(found)}: name one")
    raise WorkbookError(f"unknown notebook {word!r}: {hint(word, catalogue)}")


def _begins(name: str, start: str) -> bool:
    return name.startswith(start) or name.split("_", 1)[-1].startswith(start)


def select(catalogue: dict[str, Notebook], words: Sequence[str]) -> list[Notebook]:
    """Return the notebooks that the words mean, and those they need, in an order to run them.

    Parameters
    ----------
    catalogue : dict
        As `load` returns it.
    words : sequence of str
        Numbers or names; none means all but the interactive ones.
    """
    unasked = {name for name, notebook in catalogue.items() if not notebook.interactive}
    wanted = {find(catalogue, word) for word in words} or unasked
    pending = list(wanted)
    while pending:
        new = set(catalogue[pending.pop()].needs) - wanted
        wanted |= new
        pending += new
    return [catalogue[name] for name in _ordered(catalogue) if name in wanted]


def _ordered(catalogue: dict[str, Notebook]) -> list[str]:
    """Order by name, but what is needed comes first, and what gathers comes last."""
    sorter = TopologicalSorter({n.name: n.needs for n in catalogue.values()})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise WorkbookError(f"notebooks need each other in a circle: {circle}") from None
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted(
            [*ready, *sorter.get_ready()], key=lambda name: (catalogue[name].gathers, name)
        )
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order


def _read(path: Path) -> Notebook:
    try:
        node = nbformat.read(path, as_version=4)
    except Exception as error:
        raise WorkbookError(f"{path.name} is no readable notebook: {error}") from None
    about = node.metadata.get("workbook", {})
    return Notebook(
        name=path.stem,
        path=path,
        title=_title(node) or path.stem,
        needs=tuple(about.get("needs", ())),
        parameters=_parameters(path, node),
        sources=tuple((cell.cell_type, cell.source) for cell in node.cells),
        interactive=bool(about.get("interactive", False)),
        gathers=bool(about.get("gathers", False)),
    )


def _title(node: nbformat.NotebookNode) -> str:
    text = "\n".join(cell.source for cell in node.cells if cell.cell_type == "markdown")
    headings = [line.lstrip("#").strip() for line in text.splitlines() if line.startswith("# ")]
    return headings[0] if headings else ""


def _parameters(path: Path, node: nbformat.NotebookNode) -> dict[str, Parameter]:
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        found = papermill.inspect_notebook(str(path))
    except ValueError as error:
        raise WorkbookError(f"{path.name}: {error}; open and save it in JupyterLab once") from None
    _all_read(path, node, set(found))
    return {
        name: Parameter(name, _literal(entry["default"]), entry["default"], entry["help"])
        for name, entry in found.items()
    }


def _all_read(path: Path, node: nbformat.NotebookNode, found: set[str]) -> None:
    """Refuse a parameters cell of which papermill reads a part only.

    Its reader goes by lines and gives up on those with a second ``=``, in a comment say. Such a
    parameter would be "unknown" to whoever sets it.
    """
    for cell in node.cells:
        if "parameters" not in cell.metadata.get("tags", []):
            continue
        for statement in ast.parse(cell.source).body:
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            for target in targets:
                if isinstance(target, ast.Name) and target.id not in found:
                    raise WorkbookError(
                        f"{path.name}: papermill cannot read parameter {target.id!r}: write it as "
                        "name = value on one line, with no second '=' in it or in its comment"
                    )


def _literal(source: str) -> Any:
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return UNKNOWN
