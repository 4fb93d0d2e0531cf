"""``python -m workbook bench``: ours against other frameworks, one table and one CSV."""

from __future__ import annotations

import datetime
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from workbook import facts, paths, store
from workbook.errors import WorkbookError
from workbook.peers import compare, plan, rows, scenario
from workbook.peers.materials import Materials
from workbook.peers.remote import WorkerError
from workbook.results import FILE
from workbook.state import Entry, State

NAME = "bench"


@dataclass
class Request:
    """What was asked on the command line; empty sequences mean the standard ones."""

    models: Sequence[str] = ()
    batches: Sequence[int] = ()
    threads: Sequence[int] = ()
    peers: Sequence[str] = ()
    rounds: int = 12
    seed: int = 0
    target: str = "native"
    isa: str = ""
    weights: str = ""
    out: Path | None = None


@dataclass
class Section:
    """One setting's part of the table."""

    setting: plan.Setting
    materials: Materials | None = None
    found: scenario.Found | None = None
    compared: list[compare.Comparison] = field(default_factory=list)
    reason: str = ""


def run(request: Request, console: Console) -> Path:
    """Measure every setting, print the table, and return the run's folder.

    Rows are kept as soon as a setting is measured: an interrupted bench has those it came to.

    Raises
    ------
    WorkbookError
        Where the request names something unknown, or the folder is in use.
    """
    if request.rounds < 1:
        raise WorkbookError(f"rounds must be at least 1, not {request.rounds}; ratios need 6")
    settings = plan.settings(request.models, request.batches, request.threads)
    if not settings:
        raise WorkbookError("this machine has too few processors for any of these settings")
    names = plan.peers(request.peers)
    _check_target(request)
    keeper = _Keeper(request, settings, names)
    begun = time.monotonic()
    sections = _prepare(request, settings, console)
    failures = scenario.prepare(_jobs(request, sections, names))
    console.print(f"prepared in {time.monotonic() - begun:.0f} s")
    known: dict = {}
    for section in sections:
        if section.materials is None:
            continue
        console.print(f"{section.setting}")
        chosen = plan.jobs(section.setting, section.materials, names, **_how(request))
        section.found = scenario.run(
            chosen, failures, request.rounds, request.seed, known, console.print
        )
        section.compared = compare.comparisons(section.found, plan.default_schedule())
        keeper.keep(section)
        console.print(f"measured, {time.monotonic() - begun:.0f} s so far")
    keeper.finish()
    kept_to = f", kept to {request.isa.upper()}" if request.isa else ""
    _show(sections, keeper.machine + kept_to, console)
    console.print(f"{time.monotonic() - begun:.0f} s in all; rows in {paths.relative(keeper.csv)}")
    return keeper.folder


def _check_target(request: Request) -> None:
    from relaxquant import TargetError
    from relaxquant.target import resolve

    plan.check_isa(request.isa, request.target)
    try:
        resolve(request.target)
    except TargetError as error:
        raise WorkbookError(str(error)) from None


def _how(request: Request) -> dict[str, str]:
    return {"target": request.target, "isa": request.isa, "weights": request.weights}


def _prepare(request: Request, settings: Sequence[plan.Setting], console: Console) -> list[Section]:
    """Make the networks' materials; a network that cannot be had is one line."""
    made: dict[str, Materials | str] = {}
    for model in dict.fromkeys(setting.model for setting in settings):
        console.print(f"preparing {model}")
        try:
            made[model] = scenario.materials(model, request.weights, request.seed)
        except WorkerError as error:
            made[model] = str(error)
    return [
        Section(setting, reason=thing)
        if isinstance(thing := made[setting.model], str)
        else Section(setting, thing)
        for setting in settings
    ]


def _jobs(request: Request, sections: Sequence[Section], names: Sequence[str]) -> list:
    return [
        job
        for section in sections
        if section.materials
        for job in plan.jobs(section.setting, section.materials, names, **_how(request))
    ]


class _Keeper:
    """The run's folder: rows as they come, and ``run.json`` at both ends."""

    def __init__(
        self, request: Request, settings: Sequence[plan.Setting], names: Sequence[str]
    ) -> None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        self.folder = request.out or paths.outputs_dir() / f"{stamp}-{NAME}"
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise WorkbookError(f"{self.folder} is not an empty folder: name another")
        parameters = {
            "settings": [str(setting) for setting in settings],
            "peers": list(names),
            "rounds": request.rounds,
            "seed": request.seed,
            "schedule": plan.default_schedule(),
            **_how(request),
        }
        self._state = State(facts.now(), NAME, {}, {NAME: Entry("ok", parameters=parameters)})
        self._log = facts.Log(self.folder, self._state)
        self.machine = self._log.machine["name"]
        self.csv = self.folder / FILE
        store.start(self.csv)
        self._log.write(finished=False)

    def keep(self, section: Section) -> None:
        """Add a setting's rows."""
        schedule = plan.default_schedule()
        for row in rows.rows(section.found, section.compared, section.materials, schedule):
            store.append(self.csv, {"notebook": NAME, "machine": self.machine, **row})

    def finish(self) -> None:
        """Say that the run came to its end."""
        self._log.write(finished=True)


LEGEND = (
    "ratio: on a peer's line time of ours / time of theirs, on a line of ours int8 / fp32, or of "
    "fewer bits / int8 direct; the median of the rounds' ratios. A goal is met or missed where the "
    "whole interval says so. top-1 as fp32: same top class as PyTorch in fp32, on images not "
    "calibrated with. peak MiB: of the whole process, and in brackets what came after importing "
    "the framework."
)


def _show(sections: Sequence[Section], where: str, console: Console) -> None:
    """Print one table with a part for each setting, and how the goals were met."""
    lines = [
        rows.lines(section.found, section.compared) if section.found else [] for section in sections
    ]
    measured = [line for part in lines for line in part if "reason" not in line]
    width = {
        name: max(len(text), *(len(line.get(name, "")) for line in measured), 0)
        for name, text in rows.HEADERS.items()
    }
    width["variant"] = max(len(line["variant"]) for part in lines for line in [rows.HEADERS, *part])
    text = [f"Ours against others on {where}", _cells(rows.HEADERS, width)]
    for section, part in zip(sections, lines, strict=True):
        text += ["", _heading(section)] + [_cells(line, width) for line in part]
    verdicts = Counter(line["verdict"] for line in measured if "verdict" in line)
    counted = [f"{verdicts[v]} {v}" for v in (compare.MET, compare.MISSED, compare.INCONCLUSIVE)]
    text += ["", *textwrap.wrap(LEGEND, 100), f"Goals: {', '.join(counted)}."]
    console.out("\n".join(text), highlight=False)


def _cells(line: dict[str, str], width: dict[str, int]) -> str:
    if "reason" in line:
        return f"{line['variant'].ljust(width['variant'])}  {line['reason']}"
    return "  ".join(line.get(name, "").ljust(width[name]) for name in rows.HEADERS).rstrip()


def _heading(section: Section) -> str:
    if section.materials is None:
        return f"{section.setting}: {section.reason}"
    untrained = "" if section.materials.trained else " · untrained weights"
    floor = rows.noise(section.found)
    noise = "" if floor != floor else f" · noise floor {100 * floor:.1f} %"
    images = f" · images: {section.materials.seen}"
    return f"{section.setting}{untrained}{noise}{images}"
