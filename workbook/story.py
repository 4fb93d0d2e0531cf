"""A whole run on one page: what its notebooks said and measured, read and not measured again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbook import catalogue, context, display, headline, notes, paper, paths, state, store
from workbook.notes import Notes
from workbook.store import Row
from workbook.tables import untrained

if TYPE_CHECKING:
    from workbook.context import Run

RAN = "yes"
PARTLY = "as far as its cells were run"
ABSENT = "no"


@dataclass(frozen=True)
class Book:
    """One notebook of the workbook, and whether its results are there."""

    name: str
    title: str
    status: str
    rows: list[Row]
    said: Notes

    @property
    def is_here(self) -> bool:
        """Whether it ran and left something."""
        return self.status in (RAN, PARTLY)

    @property
    def link(self) -> str:
        """Markdown."""
        return f"[{re.split('[:?]', self.title)[0]}]({self.name}.ipynb)"


@dataclass(frozen=True)
class Story:
    """What lies in a run's folder.

    Attributes
    ----------
    folder : pathlib.Path
    books : list of Book
        Every notebook that is run without being named, in the order of reading, but the one that
        reads; an interactive one where it left something.
    """

    folder: Path
    books: list[Book]

    @cached_property
    def here(self) -> list[Book]:
        """Those whose results are there."""
        return [book for book in self.books if book.is_here]

    @property
    def rows(self) -> list[Row]:
        """All rows of those."""
        return [row for book in self.here for row in book.rows]

    @property
    def machines(self) -> str:
        """The machines that measured, by their short names."""
        return "; ".join(dict.fromkeys(row["machine"] for row in self.rows))

    @property
    def missing(self) -> str:
        """What is not there, and how to get it; empty where all is."""
        absent = [book for book in self.books if not book.is_here]
        if not absent:
            return ""
        numbers = " ".join(book.name.partition("_")[0] for book in absent)
        what = ", ".join(f"{book.link}{_why(book)}" for book in absent)
        if not self.here:
            return (
                "**Nothing has been measured in this run yet**, so there is nothing to tell. Run "
                "others first: `make run` runs all, `python -m workbook run 00 03 10` a few; in "
                "JupyterLab every notebook that was run before this one counts."
            )
        how = f"`python -m workbook run {numbers} --resume` adds what is missing to the latest run"
        return f"Not in this run: {what}. {how}."

    def book_lines(self) -> list[dict[str, Any]]:
        """A line a notebook: whether it is in this run, and how much it left."""
        return [
            {
                "notebook": book.title,
                "in this run": book.status,
                "rows": len(book.rows),
                "figures": len(book.said["figures"]),
            }
            for book in self.books
        ]

    def sentences(self) -> list[str]:
        """What the notebooks found, in their own words, as Markdown."""
        return [
            f"{line['text']} {_label(line)}{book.link}"
            for book in self.here
            for line in book.said["headlines"]
        ]

    def claims(self) -> list[paper.Line]:
        """The paper's ratios, as far as this run holds their notebooks."""
        return paper.lines(self.rows, [book.name for book in self.here])

    def result_lines(self) -> list[dict[str, Any]]:
        """A line for each variant that a headline speaks of, with its accuracy."""
        said = {book.name: book.said for book in self.here}
        chosen = headline.flagged(self.rows, said)
        return [
            _result(block, line)
            for block in headline.blocks(chosen, self.rows)
            for line in block.lines
        ]

    def changes(self) -> list[Row]:
        """The rows that say by how many points quantizing changes top-1."""
        return [row for row in self.rows if row["metric"] == "top1_difference"]


def read(folder: Path, own: str) -> Story:
    """Read what the notebooks left in a run's folder.

    Parameters
    ----------
    folder : pathlib.Path
        A run's folder, or that of the notebooks that no runner started.
    own : str
        The notebook that reads; its own rows are none of the story's.
    """
    statuses = _statuses(folder)
    books = []
    for name, notebook in catalogue.load(paths.notebooks_dir()).items():
        rows_file = context.rows_file(folder, name)
        rows = store.read(rows_file) if rows_file.is_file() else []
        said = notes.read(context.notes_file(folder, name))
        status = _status(statuses, name, bool(rows or any(said.values())))
        if name == own or (notebook.interactive and status == ABSENT):
            continue
        there = status in (RAN, PARTLY)
        kept, heard = (rows, said) if there else ([], notes.empty())
        books.append(Book(name, notebook.title, status, kept, heard))
    return Story(folder, books)


def table(run: Run, lines: Sequence[Any], caption: str) -> None:
    """Show a table; where this run holds nothing for it, say so."""
    if lines:
        run.table(lines, caption)
    else:
        display.show_prose(f"*{caption}: nothing of it is in this run.*")


def counts(rows: Iterable[Row], unit: str) -> str:
    """How many samples rows stand for, ``"10 to 20 rounds"`` say; empty where none tells."""
    found = sorted({row["n"] for row in rows if row["n"]})
    if not found:
        return ""
    many = f"{found[0]} to {found[-1]}" if len(found) > 1 else f"{found[0]}"
    return f"{many} {unit}"


def claim_lines(claims: Sequence[paper.Line]) -> list[dict[str, str]]:
    """A line a claim of the paper: published, ours, and the accuracy of ours."""
    return [
        {
            "ratio": line.what,
            "published": f"{line.published} ({line.place})",
            "ours": _text(line.ours) if line.ours else "not in this run",
            "accuracy of ours": "; ".join(f"{_text(a)} {a.label}" for a in line.accuracy)
            + untrained(not line.untrained),
        }
        for line in claims
    ]


def _statuses(folder: Path) -> dict[str, str] | None:
    """How each notebook of a run ended; None where no runner keeps account."""
    if not (folder / state.FILE).is_file():
        return None
    return {name: entry.status for name, entry in state.load(folder).notebooks.items()}


def _status(statuses: dict[str, str] | None, name: str, left: bool) -> str:
    if statuses is None:
        return PARTLY if left else ABSENT
    ended = statuses.get(name, ABSENT)
    return RAN if ended == state.OK else ended


def _label(line: dict[str, Any]) -> str:
    return f"*({line['label']})* " if line["label"] else ""


def _why(book: Book) -> str:
    return "" if book.status == ABSENT else f" ({book.status})"


def _text(cell: headline.Cell) -> str:
    return f"{cell.value} ({cell.detail})" if cell.detail else cell.value


def _result(block: headline.Block, line: headline.Line) -> dict[str, str]:
    figures = (f"{cell.label} {_text(cell)}" for cell in line.cells.values())
    return {
        "network": f"{block.title}{untrained(not block.untrained)}",
        "variant": ", ".join(part for part in line.variant.values() if part),
        "measured": "; ".join(figures),
        "accuracy": "; ".join(f"{_text(cell)} {cell.label}" for cell in line.accuracy[:1]),
        "in": line.notebook.partition("_")[0],
    }
