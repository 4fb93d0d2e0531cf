"""What the terminal shows of a sweep: a table that keeps itself current, or lines in a log."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from workbook.sweep_state import FAILED, INTERRUPTED, OK, RUNNING, WAITING, Item, Sweep

MARKS = {
    OK: "[green]ok[/]",
    FAILED: "[bold red]failed[/]",
    RUNNING: "[cyan]running[/]",
    INTERRUPTED: "[yellow]interrupted[/]",
    WAITING: "[dim]waiting[/]",
}
# Lines of the terminal that are not the table's.
FRAME = 6


class Display:
    """The status table of a sweep.

    Parameters
    ----------
    console : rich.console.Console
    sweep : Sweep
        Read each time the table is drawn.
    """

    def __init__(self, console: Console, sweep: Sweep) -> None:
        self._console, self._sweep = console, sweep
        self._begun: dict[int, float] = {}
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Display:
        kept = self._sweep.count(OK)
        if self._live is not None:
            self._live.start()
        elif kept:
            self._print(f"[green]kept[/]  {kept} of {len(self._sweep.items)} items are unchanged")
        self.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()
        if self._live is not None:
            self._live.stop()

    def begin(self, item: Item) -> None:
        """Show that an item starts."""
        self._begun[id(item)] = time.monotonic()
        self._line(item)

    def end(self, item: Item) -> None:
        """Show how an item ended."""
        self._line(item)

    def refresh(self) -> None:
        """Draw the table again."""
        if self._live is not None:
            self._live.update(Group(self._table(), Text(counts(self._sweep))), refresh=True)

    def _line(self, item: Item) -> None:
        if self._live is None:
            detail = item.reason or (f"{item.seconds:.0f} s" if item.status == OK else item.where)
            self._print(f"{MARKS[item.status]}  [bold]{escape(item.label)}[/]  {escape(detail)}")
        self.refresh()

    def _print(self, text: str) -> None:
        self._console.print(text.rstrip(), highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        names = self._sweep.parameters
        table = Table("", "notebook", *names, "time", "host", "", box=None, pad_edge=False)
        for item in self._window():
            cells = (item.notebook, *(item.given.get(name, "") for name in names))
            told = (self._time(item), item.where, item.reason)
            table.add_row(MARKS[item.status], *map(escape, (*cells, *told)))
        return table

    def _window(self) -> list[Item]:
        """Return the items that fit: those around the one that runs."""
        items = list(self._sweep.items.values())
        room = max(3, self._console.height - FRAME)
        current = next((i for i, item in enumerate(items) if item.status == RUNNING), len(items))
        first = max(0, min(current - room // 2, len(items) - room))
        return items[first : first + room]

    def _time(self, item: Item) -> str:
        if item.status == RUNNING:
            return f"{time.monotonic() - self._begun.get(id(item), time.monotonic()):.0f} s"
        return f"{item.seconds:.0f} s" if item.seconds else ""


def counts(sweep: Sweep) -> str:
    """Return one sentence: how many items have which status."""
    found = [f"{n} {status}" for status in MARKS if (n := sweep.count(status))]
    return f"{len(sweep.items)} items: {', '.join(found)}"
