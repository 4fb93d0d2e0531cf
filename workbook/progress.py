"""What the terminal shows of a run: the current cell in a terminal, lines in a log."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from workbook.state import FAILED, INTERRUPTED, OK, SKIPPED, Entry

MARKS = {
    OK: "[green]ok[/]",
    FAILED: "[bold red]failed[/]",
    SKIPPED: "[yellow]skipped[/]",
    INTERRUPTED: "[yellow]interrupted[/]",
}


class Display:
    """A bar for the notebook that runs, and a line for each that is done.

    Parameters
    ----------
    console : rich.console.Console
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[cell]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, name: str) -> None:
        """Show that a notebook starts."""
        self._task = self._progress.add_task(escape(name), total=None, cell="starting kernel")
        if not self._console.is_terminal:
            self._line("run", name, "")

    def cell(self, index: int, count: int) -> None:
        """Show the cell that begins."""
        self._progress.update(
            self._task, completed=index, total=count, cell=f"cell {index + 1}/{count}"
        )

    def end(self, name: str, entry: Entry) -> None:
        """Show how a notebook ended."""
        if entry.status != SKIPPED:
            self._progress.remove_task(self._task)
        self._line(MARKS[entry.status], name, _detail(entry))

    def kept(self, name: str) -> None:
        """Show that an earlier result still holds."""
        self._line("[green]kept[/]", name, "unchanged")

    def note(self, text: str) -> None:
        """Show a line of text."""
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def _line(self, mark: str, name: str, detail: str) -> None:
        line = f"{mark}  [bold]{escape(name)}[/]  {escape(detail)}".rstrip()
        self._console.print(line, highlight=False, soft_wrap=True)


def _detail(entry: Entry) -> str:
    if entry.status == SKIPPED:
        return entry.reason
    seconds = f"{entry.seconds:.0f} s"
    if entry.error is None:
        return seconds
    first = (entry.error["value"].splitlines() or [""])[0]
    where = f" in cell [{entry.error['cell']}]" if entry.error["cell"] else ""
    return f"{seconds}: {entry.error['name']}{where}: {first}"
