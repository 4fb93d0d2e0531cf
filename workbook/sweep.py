"""Run a grid of notebooks with parameters, and pick up where it was stopped.

A sweep is a folder: ``items/<key>/`` is the run of one item, moved there whole once it has ended,
so that an item is there or not, never half; ``partial/`` is where they run. What is there and of
the same fingerprint (notebook, library, parameters, see `workbook.fingerprint`) is not run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from workbook import facts, fingerprint, paths, runner, state, sweep_report, sweep_state
from workbook.catalogue import Notebook, load, select
from workbook.errors import WorkbookError
from workbook.grid import Point, points
from workbook.parameters import resolve
from workbook.sweep_pool import LOG, Done, LocalPool
from workbook.sweep_progress import Display
from workbook.sweep_state import FAILED, INTERRUPTED, OK, RUNNING, WAITING, Item, Sweep

if TYPE_CHECKING:
    from workbook.sweep_dask import DaskPool, Fleet

PARTIAL = "partial"
# An item whose machine was lost is begun again, but not for ever: it may be what kills them.
ATTEMPTS = 3
TICK = 0.25


@dataclass
class Request:
    """What was asked on the command line.

    Attributes
    ----------
    words : sequence of str
        Notebooks; none only where a sweep is gone on with.
    profile : str or None
        None means ``quick``.
    given : sequence of (str, str)
        Parameter name and its values, as typed.
    out : pathlib.Path or None
        The sweep's folder; None means one named by a hash of the request, so that the same command
        goes on with it.
    resume : bool
        Go on with the sweep in `out`, or the latest.
    scheduler : str or None
        Address of a Dask scheduler whose workers run the items.
    """

    words: Sequence[str] = ()
    profile: str | None = None
    given: Sequence[tuple[str, str]] = ()
    out: Path | None = None
    resume: bool = False
    scheduler: str | None = None


@dataclass
class Outcome:
    """How a sweep ended: its folder, its page, its state, and whether it was interrupted."""

    folder: Path
    index: Path
    sweep: Sweep
    interrupted: bool

    @property
    def code(self) -> int:
        """The exit status: 0 if every item ended well, 1 if one failed, 130 if interrupted."""
        if self.interrupted:
            return 130
        return int(self.sweep.count(OK) < len(self.sweep.items))


def run(request: Request, console: Console) -> Outcome:
    """Check the request, run the items that are missing, write the tables and the page.

    Nothing is written before the request is checked.

    Raises
    ------
    WorkbookError
        Where the request names something unknown or of the wrong type, the folder does not fit,
        another sweep works in it, or the scheduler cannot be used.
    """
    folder, current = _begin(request)
    catalogue = load(paths.notebooks_dir())
    grid = _points(catalogue, current)
    current.items = {p.key: _item(p, current.items.get(p.key)) for p in grid}
    prints = _Prints(catalogue)
    fleet = _fleet(request.scheduler, prints.code)
    folder.mkdir(parents=True, exist_ok=True)
    with sweep_state.alone(folder) as lock:
        for key, item in current.items.items():
            _look(item, sweep_report.run_folder(folder, key), prints)
        scratch = _emptied(folder / PARTIAL)
        pool = _pool(fleet, scratch, lock)
        with Display(console, current) as display:
            interrupted = _Session(folder, current, prints, display).run(pool)
        scratch.rmdir()
    return Outcome(folder, sweep_report.build(folder, current), current, interrupted)


class _Prints:
    """The fingerprints that items must have, computed once for the code."""

    def __init__(self, catalogue: dict[str, Notebook]) -> None:
        self._catalogue = catalogue
        self.code = fingerprint.of_code(paths.root())

    def hold(self, folder: Path, item: Item) -> bool:
        """Return whether an item's run is there, good, whole, and of its fingerprint."""
        try:
            current = state.load(folder)
        except WorkbookError:
            return False
        expected = self.of(item)
        return all(runner.holds(folder, current, name, p) for name, p in expected.items())

    def of(self, item: Item) -> dict[str, str]:
        """Return notebook -> fingerprint of an item's notebooks."""
        notebooks = select(self._catalogue, [item.notebook])
        parameters = resolve(notebooks, item.given, item.profile)
        return fingerprint.of_notebooks(notebooks, parameters, self.code)


class _Session:
    """One pass over the items, saving after each."""

    def __init__(self, folder: Path, current: Sweep, prints: _Prints, display: Display) -> None:
        self.folder, self.sweep, self.prints, self.display = folder, current, prints, display
        self._todo = [key for key, item in current.items.items() if item.status != OK]

    def run(self, pool: LocalPool | DaskPool) -> bool:
        """Run what has to be run; return whether it was interrupted."""
        self._save()
        try:
            with runner.terminate_as_interrupt(), pool:
                while self._todo or not pool.idle:
                    while self._todo and pool.free():
                        self._start(pool, self._todo.pop(0))
                    for done in pool.collect(TICK):
                        self._end(done)
                    self.display.refresh()
        except KeyboardInterrupt:
            self._stop()
            return True
        except WorkbookError:
            self._stop()
            raise
        return False

    def _stop(self) -> None:
        """Say of what was in flight that it did not end, and drop what it left."""
        for item in self.sweep.items.values():
            if item.status == RUNNING:
                item.status = INTERRUPTED
        _emptied(self.folder / PARTIAL)
        self._save()

    def _start(self, pool: LocalPool | DaskPool, key: str) -> None:
        item = self.sweep.items[key]
        item.status, item.started, item.reason = RUNNING, facts.now(), ""
        item.attempts += 1
        # Saved before it starts: an attempt that nobody survived is counted.
        self._save()
        spec = {"notebook": item.notebook, "profile": item.profile, "given": item.given}
        item.where = pool.submit(key, spec)
        self.display.begin(item)

    def _end(self, done: Done) -> None:
        item = self.sweep.items[done.key]
        if done.code is None and item.attempts < ATTEMPTS:
            item.status, item.reason = WAITING, done.log
            self._todo.insert(0, done.key)
        else:
            target = self._publish(done)
            item.status, item.reason = self._verdict(target, item, done)
            item.seconds = _seconds(target)
        self._save()
        self.display.end(item)

    def _publish(self, done: Done) -> Path:
        """Move what an attempt left into place; an earlier one gives way."""
        target = sweep_report.run_folder(self.folder, done.key)
        left = done.folder or self.folder / PARTIAL / done.key / "run"
        left.mkdir(parents=True, exist_ok=True)
        (left / LOG).write_text(paths.without_folders(done.log), encoding="utf-8")
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            target.rename(left.parent / "before")
        left.rename(target)
        shutil.rmtree(left.parent)
        return target

    def _verdict(self, target: Path, item: Item, done: Done) -> tuple[str, str]:
        if done.code == 0 and self.prints.hold(target, item):
            return OK, ""
        if done.code == 0:
            return FAILED, "notebooks or library changed while it ran: sweep again"
        return FAILED, _reason(target, done)

    def _save(self) -> None:
        self.sweep.save(self.folder)
        sweep_report.build(self.folder, self.sweep)


def _begin(request: Request) -> tuple[Path, Sweep]:
    """Return the sweep's folder and its state, the request among those it holds."""
    asked = {
        "words": list(request.words),
        "profile": request.profile or "quick",
        "given": [list(pair) for pair in request.given],
    }
    folder = request.out or _default_folder(request, asked)
    if not (folder / sweep_state.FILE).is_file():
        if request.resume:
            sweep_state.load(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise WorkbookError(f"{folder} holds no sweep and is not empty: name another folder")
        return folder, Sweep(facts.now(), [asked])
    current = sweep_state.load(folder)
    if not request.words and (request.given or request.profile):
        raise WorkbookError("name the notebooks that the parameters are for, or resume without any")
    if request.words and asked not in current.requests:
        current.requests.append(asked)
    return folder, current


def _default_folder(request: Request, asked: dict) -> Path:
    if request.resume:
        return sweep_state.latest(paths.outputs_dir())
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]
    return paths.outputs_dir() / f"sweep-{digest}"


def _points(catalogue: dict[str, Notebook], current: Sweep) -> list[Point]:
    found: dict[str, Point] = {}
    for asked in current.requests:
        for point in points(catalogue, asked["words"], asked["profile"], asked["given"]):
            found.setdefault(point.key, point)
    return list(found.values())


def _item(point: Point, earlier: Item | None) -> Item:
    if earlier is not None:
        return earlier
    fields = asdict(point)
    del fields["key"]
    return Item(**fields)


def _look(item: Item, run: Path, prints: _Prints) -> None:
    """Bring an item's status up to what lies there: a killed sweep's record is behind it."""
    item.status = WAITING
    if prints.hold(run, item):
        item.status, item.reason, item.seconds = OK, "", _seconds(run)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _pool(fleet: Fleet | None, scratch: Path, lock: int) -> LocalPool | DaskPool:
    if fleet is None:
        return LocalPool(scratch, lock)
    from workbook.sweep_dask import DaskPool

    return DaskPool(fleet, scratch)


def _fleet(scheduler: str | None, code: str) -> Fleet | None:
    if scheduler is None:
        return None
    # Imported late: Dask is an extra, and most sweeps do without.
    from workbook.sweep_dask import Fleet

    return Fleet(scheduler, code)


def _seconds(target: Path) -> float:
    entries: Iterator[state.Entry] = iter(())
    with contextlib.suppress(WorkbookError):
        entries = iter(state.load(target).notebooks.values())
    return round(sum(entry.seconds for entry in entries), 1)


def _reason(target: Path, done: Done) -> str:
    """Return why an item failed, in one line: a notebook's error, or the last thing it printed."""
    with contextlib.suppress(WorkbookError):
        for name, entry in state.load(target).notebooks.items():
            if entry.error:
                first = (entry.error["value"].splitlines() or [""])[0]
                return f"{name}: {entry.error['name']}: {first}"
            if entry.status == state.RUNNING:
                return f"{name}: its process ended with status {done.code}, out of memory perhaps"
    lines = [line for line in done.log.splitlines() if line.strip()]
    return lines[-1] if lines else f"its process ended with status {done.code}"
