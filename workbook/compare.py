"""Two runs side by side: which measurements improved, regressed, or cannot be told apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbook import facts, joined, results, state, store, verdicts
from workbook.errors import WorkbookError
from workbook.noise import Noise
from workbook.verdicts import Change

# What a measurement is; the rest of a row is what came out.
MEASURED = ("value", "ci_low", "ci_high", "n", "machine")
IDENTITY = tuple(column for column in store.COLUMNS if column not in MEASURED)
# Load of others in processors, before a run; after it, its own threads count too.
BUSY_BEFORE, BUSY_AFTER = 1.0, 2.0
# A common movement of all times that is worth a sentence.
SAID = 0.02

Row = Mapping[str, Any]


@dataclass
class Side:
    """One of the two runs.

    Attributes
    ----------
    folder : pathlib.Path
    rows : list of dict
    about : dict
        Its ``run.json``; empty where it has none (a sweep's folder).
    finished, failed : set of str
        Notebooks that ended well, and those that did not.
    """

    folder: Path
    rows: list[Row]
    about: dict[str, Any]
    finished: set[str]
    failed: set[str]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def machines(self) -> list[str]:
        """The machines its rows name."""
        return sorted({row["machine"] for row in self.rows})

    @property
    def revision(self) -> str | None:
        """The checkout's git revision, as `workbook.facts.revision` writes it."""
        return facts.revision(self.about.get("machine", {}))


@dataclass
class Comparison:
    """What two runs say of each other.

    Attributes
    ----------
    before, after : Side
    changes : list of Change
        One a pair of rows, in the order of the second run.
    gone, new : list of dict
        Rows that only the first, only the second run has.
    broken : list of str
        Notebooks that ended well in the first run and not in the second.
    cautions : list of str
        Sentences to read before the verdicts.
    """

    before: Side
    after: Side
    changes: list[Change]
    gone: list[Row]
    new: list[Row]
    broken: list[str]
    cautions: list[str]

    def of(self, verdict: str) -> list[Change]:
        """Return the changes of one verdict."""
        return [change for change in self.changes if change.verdict == verdict]

    @property
    def regressed(self) -> bool:
        """Whether something got worse, or a notebook no longer ends well."""
        return bool(self.of(verdicts.REGRESSED) or self.broken)


def load(folder: Path) -> Side:
    """Read one side: the folder of a run, a benchmark or a sweep.

    Raises
    ------
    WorkbookError
        Where it holds no result rows.
    """
    path = folder / facts.FILE
    about = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    entries = state.load(folder).notebooks if (folder / state.FILE).is_file() else {}
    finished = {name for name, entry in entries.items() if entry.status == state.OK}
    rows = joined.read(folder / results.FILE)
    return Side(folder, rows, about, finished, set(entries) - finished)


def compare(first: Path, second: Path) -> Comparison:
    """Compare two runs.

    Parameters
    ----------
    first, second : pathlib.Path
        Their folders: before and after.

    Raises
    ------
    WorkbookError
        Where a folder holds no result rows, or the two have no measurement in common.
    """
    before, after = load(first), load(second)
    pairs, gone, new = pair(before.rows, after.rows)
    if not pairs:
        raise WorkbookError(
            f"{before.name} and {after.name} have no measurement in common: "
            "compare runs of the same notebooks with the same models and parameters"
        )
    noise = Noise(before.rows, after.rows, pairs, busy(before) or busy(after))
    changes = verdicts.judge(pairs, noise)
    broken = sorted(before.finished & after.failed)
    cautions = _cautions(before, after, noise, broken)
    return Comparison(before, after, changes, gone, new, broken, cautions)


def pair(
    before: Sequence[Row], after: Sequence[Row]
) -> tuple[list[tuple[Row, Row]], list[Row], list[Row]]:
    """Return the rows that measure the same, those of `before` alone, and those of `after` alone.

    The same measurement kept more than once is paired in the order in which it was kept.
    """
    old, new = _by_identity(before), _by_identity(after)
    pairs = [(old[key], row) for key, row in new.items() if key in old]
    gone = [row for key, row in old.items() if key not in new]
    return pairs, gone, [row for key, row in new.items() if key not in old]


def describe(row: Row) -> str:
    """Return what a row measured, in words: its identity without notebook and metric."""
    parameters = [
        f"{name.removeprefix(joined.PREFIX)}={row[name]}"
        for name in row
        if name.startswith(joined.PREFIX)
    ]
    batch = f"batch {row['batch']}" if row["batch"] else None
    weights = "untrained" if row["trained"] is False else None
    names = ("precision", "schedule", "layout", "executor")
    parts = [row["model"], weights, batch, *(row[name] for name in names), *parameters]
    return ", ".join(str(part) for part in parts if part)


def _by_identity(rows: Iterable[Row]) -> dict[tuple, Row]:
    found: dict[tuple, Row] = {}
    for row in rows:
        extra = tuple((k, row[k]) for k in sorted(row) if k.startswith(joined.PREFIX))
        key = (*(row[column] for column in IDENTITY), extra)
        repeat = 0
        while (*key, repeat) in found:
            repeat += 1
        found[(*key, repeat)] = row
    return found


def _cautions(before: Side, after: Side, noise: Noise, broken: list[str]) -> list[str]:
    said = []
    if broken:
        said.append(f"No longer ends well: {', '.join(broken)}.")
    if before.machines != after.machines:
        said.append(
            f"Other machines ({'; '.join(before.machines)} against {'; '.join(after.machines)}): "
            "times are not compared, only ratios, shares and bytes."
        )
    if abs(noise.shift) > SAID:
        way = "slower" if noise.shift > 0 else "faster"
        percent = 100 * abs(math.expm1(noise.shift))
        said.append(
            f"At least three quarters of all times are {way} by {percent:.1f} % or more: the "
            "machine's state may do that, so times count from there on only; ratios tell."
        )
    for side in (before, after):
        if busy(side):
            loads = " and ".join(f"{side.about['load'][w][0]:.1f}" for w in ("before", "after"))
            said.append(
                f"{side.name} ran on a busy machine (load {loads} before and after): "
                "its times count for nothing."
            )
    return said + _changed_packages(before, after)


def busy(side: Side) -> bool:
    """Return whether a run had to share its machine, by the load before and after it."""
    loads = side.about.get("load") or {}
    cores = ((side.about.get("machine") or {}).get("cores") or {}).get("logical") or 1
    limits = {"before": BUSY_BEFORE, "after": BUSY_AFTER}
    return all(loads.get(when) for when in limits) and any(
        loads[when][0] > limit * cores for when, limit in limits.items()
    )


def _changed_packages(before: Side, after: Side) -> list[str]:
    old, new = ((side.about.get("machine") or {}).get("packages") or {} for side in (before, after))
    names = [name for name in sorted(old.keys() & new.keys()) if old[name] != new[name]]
    changed = ", ".join(f"{name} {old[name]} to {new[name]}" for name in names)
    return [f"Other packages: {changed}."] if changed else []
