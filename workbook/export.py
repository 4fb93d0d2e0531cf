"""An executed notebook as two HTML pages: with its code and without."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from workbook import templates
from workbook.files import write_atomic


def export(executed: Path, title: str) -> tuple[Path, Path]:
    """Write ``NAME.html`` and ``NAME-text.html`` beside an executed notebook.

    nbconvert's own page templates load MathJax and require.js from the network; only its body is
    taken, and set in the workbook's page, so that the folder can be read anywhere.

    Parameters
    ----------
    executed : pathlib.Path
        The ``.ipynb``.
    title : str
        Title of the pages.

    Returns
    -------
    tuple of pathlib.Path
        The page with code and the page without.
    """
    node = nbformat.read(executed, as_version=4)
    pages = pages_of(executed)
    for page, other, code in ((pages[0], pages[1], True), (pages[1], pages[0], False)):
        write_atomic(page, _page(node, executed, title, code, other.name))
    return pages


def pages_of(executed: Path) -> tuple[Path, Path]:
    """Return the paths of the two pages of an executed notebook."""
    return executed.with_suffix(".html"), executed.with_name(f"{executed.stem}-text.html")


def _page(node: nbformat.NotebookNode, executed: Path, title: str, code: bool, other: str) -> str:
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=not code,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, resources = exporter.from_notebook_node(node)
    return templates.render(
        "notebook.html.j2",
        title=title,
        name=executed.stem,
        body=body,
        code=code,
        other=other,
        highlight="\n".join(resources["inlining"]["css"]),
    )
