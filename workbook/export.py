"""An executed notebook as two HTML pages: with its code and without."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from workbook import templates
from workbook.files import write_atomic

# A link of a notebook to another one beside it, as Markdown makes it, and as the pages keep it.
TO_NOTEBOOK = re.compile(r'<a href="([\w-]+)\.ipynb">')
KEPT = re.compile(r'<a data-notebook="([\w-]+)"(?: href="[^"]*")?>')


def export(executed: Path, title: str) -> tuple[Path, Path]:
    """Write ``NAME.html`` and ``NAME-text.html`` beside an executed notebook.

    nbconvert's own page templates load MathJax and require.js from the network; only its body is
    taken, and set in the workbook's page, so that the folder can be read anywhere. Links to other
    notebooks lead nowhere until `relink` knows which of them were run.

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


def relink(executed: Path, there: Collection[str]) -> None:
    """Let a notebook's pages link to the same kind of page of those notebooks that have one.

    Parameters
    ----------
    executed : pathlib.Path
        The ``.ipynb``; pages it lacks are passed over.
    there : collection of str
        Notebooks of the run whose pages exist. The words of a link to any other stay as text.
    """
    for page, suffix in zip(pages_of(executed), ("", "-text"), strict=True):
        if not page.is_file():
            continue
        text = page.read_text(encoding="utf-8")

        def link(match: re.Match, suffix: str = suffix) -> str:
            name = match[1]
            target = f' href="{name}{suffix}.html"' if name in there else ""
            return f'<a data-notebook="{name}"{target}>'

        linked = KEPT.sub(link, text)
        if linked != text:
            write_atomic(page, linked)


def _page(node: nbformat.NotebookNode, executed: Path, title: str, code: bool, other: str) -> str:
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=not code,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, _ = exporter.from_notebook_node(node)
    return templates.render(
        "notebook.html.j2",
        title=title,
        name=executed.stem,
        body=TO_NOTEBOOK.sub(r'<a data-notebook="\1">', body),
        code=code,
        other=other,
    )
