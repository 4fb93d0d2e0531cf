"""The one exception a user of the workbook meets, and the near names its messages offer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WorkbookError(Exception):
    """Bad input: names the thing that is wrong and the way out; shown without a traceback."""


def hint(name: str, known: Iterable[str]) -> str:
    """Return what to say after naming an unknown thing.

    Parameters
    ----------
    name : str
        The unknown name.
    known : iterable of str
        The names that would have been accepted.

    Returns
    -------
    str
        ``"did you mean 'batch'? Known: batch, model"``, without the question where nothing is near.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    question = f"did you mean {near[0]!r}? " if near else ""
    return f"{question}Known: {', '.join(names) or 'none'}"
