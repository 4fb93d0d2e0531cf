"""Run the selected notebooks one after the other into one folder, and pick up where one stopped."""

from __future__ import annotations

import contextlib
import datetime
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from workbook import (
    execute,
    export,
    facts,
    fingerprint,
    paths,
    report,
    results,
    state,
    unchanged,
)
from workbook.catalogue import Notebook, find, load, select
from workbook.errors import WorkbookError
from workbook.parameters import resolve
from workbook.progress import Display
from workbook.state import FAILED, INTERRUPTED, OK, RUNNING, SKIPPED, Entry, State


@dataclass
class Request:
    """What was asked on the command line.

    Attributes
    ----------
    words : sequence of str
        Notebooks; none means all, or with `resume` those of the earlier run.
    profile : str or None
        None means ``quick``, or with `resume` that of the earlier run, which has only one.
    given : dict
        Parameter name -> text.
    out : pathlib.Path or None
        The run's folder; None means that of an earlier run with nothing changed since, else a new
        one, or with `resume` the latest.
    resume : bool
        Run again only what is missing, failed or changed.
    fresh : bool
        Begin a new run in any case.
    """

    words: Sequence[str] = ()
    profile: str | None = None
    given: dict[str, str] = field(default_factory=dict)
    out: Path | None = None
    resume: bool = False
    fresh: bool = False


@dataclass
class Outcome:
    """How a run ended.

    Attributes
    ----------
    folder : pathlib.Path
    index : pathlib.Path
        The report.
    state : State
    interrupted : bool
    """

    folder: Path
    index: Path
    state: State
    interrupted: bool

    @property
    def code(self) -> int:
        """The exit status: 0 if all is well, 1 if a notebook failed, 130 if interrupted."""
        if self.interrupted:
            return 130
        return int(len(self.state.finished()) < len(self.state.notebooks))


def run(request: Request, console: Console) -> Outcome:
    """Check the request, run the notebooks, write the report.

    Nothing is written before the request is checked.

    Raises
    ------
    WorkbookError
        Where the request names something unknown or of the wrong type, or the folder does not fit.
    """
    folder, current = _begin(request)
    catalogue = load(paths.notebooks_dir())
    notebooks = select(catalogue, _words(request, current, catalogue))
    parameters = resolve(notebooks, current.requested, current.profile)
    prints = fingerprint.of_notebooks(notebooks, parameters, fingerprint.of_code(paths.root()))
    earlier = _earlier(request, notebooks, prints)
    folder, current = earlier or (folder, current)
    if not earlier and not request.resume:
        _check_free(folder)
    log = facts.Log(folder, current)
    folder.mkdir(parents=True, exist_ok=True)
    with Display(console) as display:
        if earlier:
            display.note(f"going on with {folder.name}, nothing changed; --fresh runs all anew")
        for name in _added(request, current, catalogue, notebooks):
            display.note(f"{name} is added: a notebook of this run needs it")
        interrupted = _Session(folder, current, log, display).run(notebooks, parameters, prints)
    return Outcome(folder, report.build(folder), current, interrupted)


class _Session:
    """One pass over the notebooks, saving after each."""

    def __init__(self, folder: Path, current: State, log: facts.Log, display: Display) -> None:
        self.folder, self.state, self.log, self.display = folder, current, log, display

    def run(
        self, notebooks: list[Notebook], parameters: dict[str, dict], prints: dict[str, str]
    ) -> bool:
        """Run what has to be run; return whether it was interrupted."""
        todo = self._todo(notebooks, prints)
        for notebook in notebooks:
            entry = Entry(INTERRUPTED, notebook.title, parameters[notebook.name])
            entry.fingerprint = prints[notebook.name]
            if notebook in todo:
                # Not run yet; should the process be killed, this is what the state says.
                entry.reason = "not reached"
                self.state.notebooks[notebook.name] = entry
        self._order(notebooks)
        if not todo:
            # run.json is of the run that measured: its load and its revision stay.
            self.state.save(self.folder)
            for notebook in notebooks:
                self.display.kept(notebook.name)
            return False
        self._save(finished=False)
        try:
            with terminate_as_interrupt():
                for notebook in notebooks:
                    self._one(notebook, notebook in todo)
        except KeyboardInterrupt:
            self._save(finished=True)
            return True
        self._save(finished=True)
        return False

    def _todo(self, notebooks: list[Notebook], prints: dict[str, str]) -> list[Notebook]:
        stale = {
            n.name for n in notebooks if not holds(self.folder, self.state, n.name, prints[n.name])
        }
        return [n for n in notebooks if n.name in stale or (stale and n.gathers)]

    def _one(self, notebook: Notebook, todo: bool) -> None:
        if not todo:
            self.display.kept(notebook.name)
            return
        entry = self.state.notebooks[notebook.name]
        entry.reason = ""
        results.clear(self.folder, notebook.name)
        broken = [n for n in notebook.needs if self.state.notebooks[n].status != OK]
        if broken:
            entry.status = SKIPPED
            reasons = [f"{name}, which {_ended(self.state.notebooks[name])}" for name in broken]
            entry.reason = f"needs {' and '.join(reasons)}"
        else:
            self._execute(notebook, entry)
        self._save(finished=False)
        self.display.end(notebook.name, entry)

    def _execute(self, notebook: Notebook, entry: Entry) -> None:
        entry.status, entry.started, entry.revision = RUNNING, facts.now(), self.log.revision
        if notebook.gathers:
            entry.gathered = results.others(self.folder, notebook.name, self.state)
        self.state.save(self.folder)
        self.display.begin(notebook.name)
        begun = time.monotonic()
        try:
            changed = {
                name: value
                for name, value in entry.parameters.items()
                if value != notebook.parameters[name].default
            }
            entry.error = execute.execute(notebook, self.folder, changed, self.display.cell)
            entry.status = FAILED if entry.error else OK
        except KeyboardInterrupt:
            entry.status, entry.reason = INTERRUPTED, "stopped by the user"
            raise
        finally:
            entry.seconds = round(time.monotonic() - begun, 1)
            executed = execute.executed_file(self.folder, notebook.name)
            if executed.is_file():
                export.export(executed, notebook.title)
            if entry.status == INTERRUPTED:
                self.display.end(notebook.name, entry)

    def _order(self, notebooks: list[Notebook]) -> None:
        entries = self.state.notebooks
        places = {notebook.name: place for place, notebook in enumerate(notebooks)}
        names = sorted(entries, key=lambda name: (places.get(name, len(places)), name))
        self.state.notebooks = {name: entries[name] for name in names}

    def _save(self, finished: bool) -> None:
        self.state.save(self.folder)
        self.log.write(finished)
        results.merge(self.folder, self.state)


def holds(folder: Path, current: State, name: str, print_: str) -> bool:
    """Return whether a notebook's result is there, good, whole, and of the same fingerprint."""
    entry = current.notebooks.get(name)
    if entry is None or entry.status != OK or entry.fingerprint != print_:
        return False
    if entry.gathered and entry.gathered != results.others(folder, name, current):
        return False
    return results.complete(folder, name)


def _earlier(
    request: Request, notebooks: list[Notebook], prints: dict[str, str]
) -> tuple[Path, State] | None:
    """Return the run that this request need not repeat; None where it says which run it means."""
    if request.out is not None or request.resume or request.fresh:
        return None
    return unchanged.find(
        paths.outputs_dir(),
        profile=request.profile or "quick",
        given=request.given,
        prints=prints,
        machine=facts.gather()["name"],
        gatherers=[notebook.name for notebook in notebooks if notebook.gathers],
    )


def _begin(request: Request) -> tuple[Path, State]:
    """Return the run's folder and its state: a new one, or the one to resume."""
    if request.resume and request.fresh:
        raise WorkbookError("--resume goes on with a run, --fresh begins one: give one of them")
    if request.resume:
        folder = request.out or state.latest(paths.outputs_dir())
        current = state.load(folder)
        if request.profile not in (None, current.profile):
            raise WorkbookError(
                f"{folder.name} is a {current.profile} run: start a new one for {request.profile}"
            )
        current.requested = {**current.requested, **request.given}
        return folder, current
    profile = request.profile or "quick"
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = request.out or paths.outputs_dir() / f"{stamp}-{profile}"
    return folder, State(facts.now(), profile, dict(request.given))


def _check_free(folder: Path) -> None:
    if (folder / state.FILE).exists():
        raise WorkbookError(f"{folder} already holds a run: add --resume, or name another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkbookError(f"{folder} is not an empty folder: name another")


def _words(request: Request, current: State, catalogue: dict[str, Notebook]) -> list[str]:
    """Return which notebooks are meant; a new parameter on resume is for the whole run."""
    earlier = [name for name in current.notebooks if name in catalogue]
    if request.words and not request.given:
        # What the named ones leave is read again by those that gather.
        earlier = [name for name in earlier if catalogue[name].gathers]
    return [*request.words, *earlier]


def _added(
    request: Request, current: State, catalogue: dict[str, Notebook], notebooks: list[Notebook]
) -> list[str]:
    if not request.words:
        return []
    asked = {find(catalogue, word) for word in request.words} | set(current.notebooks)
    return [notebook.name for notebook in notebooks if notebook.name not in asked]


def _ended(entry: Entry) -> str:
    return "was skipped" if entry.status == SKIPPED else entry.status


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM (a batch system's way to stop a job) end a run as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
