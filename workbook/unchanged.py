"""An earlier run that was asked for the same and would come out the same: it need not be run again.

As with sweeps, the same command again goes on where the earlier one stopped.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from workbook import facts, state
from workbook.errors import WorkbookError
from workbook.state import State


def find(
    outputs: Path,
    *,
    profile: str,
    given: Mapping[str, str],
    prints: Mapping[str, str],
    machine: str,
    gatherers: Collection[str] = (),
) -> tuple[Path, State] | None:
    """Return the newest run with nothing changed since, and its state; None where there is none.

    Parameters
    ----------
    outputs : pathlib.Path
        The folder that holds one folder a run.
    profile : str
    given : mapping
        Parameter name -> text, as typed.
    prints : mapping
        The notebooks that are asked for -> their fingerprints of today.
    machine : str
        Its short name: times of another machine are another result.
    gatherers : collection of str
        Those of the notebooks that only read what the others left. A change of theirs alone needs
        no run of its own.

    Notes
    -----
    A run that never came to its end is passed over: it may still be going on.
    """
    runs = sorted(_runs(outputs), key=lambda run: run[1].created, reverse=True)
    measured = {name: print_ for name, print_ in prints.items() if name not in gatherers}
    for folder, current in runs:
        before = {name: entry.fingerprint for name, entry in current.notebooks.items()}
        same = (
            (current.profile, current.requested) == (profile, dict(given))
            and before.keys() == prints.keys()
            and all(before[name] == print_ for name, print_ in measured.items())
        )
        if same and _ended(folder, machine):
            return folder, current
    return None


def _runs(outputs: Path) -> Iterator[tuple[Path, State]]:
    for path in outputs.glob(f"*/{state.FILE}"):
        # One that another version wrote is no obstacle to a new run.
        with contextlib.suppress(WorkbookError):
            yield path.parent, state.load(path.parent)


def _ended(folder: Path, machine: str) -> bool:
    path = folder / facts.FILE
    if not path.is_file():
        return False
    about = json.loads(path.read_text(encoding="utf-8"))
    return about["finished"] is not None and about["machine"]["name"] == machine
