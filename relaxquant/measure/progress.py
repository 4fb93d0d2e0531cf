"""One progress bar for the loops that take long, silent unless asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import InputError


@contextmanager
def progress_bar(description: str, total: int, show: bool) -> Iterator[Callable[..., None]]:
    """Yield a function to call after each of `total` steps; it draws a bar if `show`.

    It may be called with another description, and with the steps that were made.

    The bar draws only when it is called: a bar with a thread of its own would take time from what
    is being measured.
    """
    if not show:
        yield lambda *_: None
        return
    try:
        from rich.progress import Progress
    except ImportError as error:
        raise InputError("progress=True draws with rich: install it or leave it out") from error

    with Progress(auto_refresh=False) as bar:
        task = bar.add_task(description, total=total)

        def step(text: str = description, steps: int = 1) -> None:
            bar.update(task, description=text, advance=steps)
            bar.refresh()

        yield step
