"""``run.json``: what was asked, on which machine, with which versions, under which load."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from workbook.errors import WorkbookError
from workbook.files import write_json
from workbook.state import State

FILE = "run.json"


def now() -> str:
    """Return the time as UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def gather() -> dict[str, Any]:
    """Return the machine's facts, as `relaxquant.measure.machine.facts` gives them.

    Raises
    ------
    WorkbookError
        Where the library cannot be imported: nothing could be run either.
    """
    try:
        # Imported late: `list` and `--help` need neither the library nor a compiler.
        from relaxquant.measure import machine
    except ImportError as error:
        raise WorkbookError(f"the environment is not complete ({error}): run 'make env'") from None
    return machine.facts()


class Log:
    """``run.json``, written when a run begins and again when it ends.

    Parameters
    ----------
    folder : pathlib.Path
        The run's folder.
    state : State
        Read each time the file is written.
    """

    def __init__(self, folder: Path, state: State) -> None:
        self._folder = folder
        self._state = state
        self._begun = now()
        self.machine = gather()
        self._before = self.machine["load"]

    @property
    def revision(self) -> str | None:
        """The checkout's git revision, ``+`` behind it where it has uncommitted changes."""
        return revision(self.machine)

    def write(self, finished: bool) -> None:
        """Write the file; a run that was killed has no ``finished`` and no load after."""
        write_json(
            self._folder / FILE,
            {
                "created": self._state.created,
                "begun": self._begun,
                "finished": now() if finished else None,
                "profile": self._state.profile,
                "requested": self._state.requested,
                "parameters": {n: e.parameters for n, e in self._state.notebooks.items()},
                "load": {"before": self._before, "after": gather()["load"] if finished else None},
                "machine": self.machine,
            },
        )


def revision(machine: dict[str, Any]) -> str | None:
    """Return the git revision among the machine's facts, ``+`` behind it where it was changed."""
    git = machine.get("git") or {}
    if not git.get("revision"):
        return None
    return git["revision"] + ("+" if git.get("dirty") else "")


def lines(run: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the machine of a ``run.json`` as label and text, for reading.

    Parameters
    ----------
    run : dict
        The content of the file. What the machine did not tell is left out.
    """
    about = run["machine"]
    cpu, cores = about["cpu"], about["cores"]
    features = ", ".join(name.replace("_", "-") for name in cpu["features"])
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    pairs = [
        ("processor", f"{cpu['model']} ({cpu['architecture']})"),
        ("instruction sets", features),
        ("caches", ", ".join(_cache(cache) for cache in cpu["caches"] or [])),
        ("cores", f"{cores['physical']} physical, {cores['logical']} logical, {_usable(cores)}"),
        ("memory", f"{about['memory_bytes'] / 2**30:.1f} GiB"),
        ("system", f"{about['os']}, {about['python']}"),
        ("packages", packages),
        ("revision", revision(about) or ""),
        ("load before and after", _loads(run["load"])),
    ]
    return [(label, text) for label, text in pairs if text]


def requirements(run: dict[str, Any]) -> str:
    """Return the packages of a ``run.json`` as a pip requirements file.

    Parameters
    ----------
    run : dict
        The content of the file. A local version (``+cpu``) is what one index serves, and is left
        out; this project is none of a registry, and is named by its revision.
    """
    about = run["machine"]
    head = [f"# {about['python']} on {about['os']}"]
    if revision(about):
        head.append(f"# relaxquant at revision {revision(about)}")
    pins = [
        f"{name}=={version.partition('+')[0]}"
        for name, version in about["packages"].items()
        if name != "relaxquant"
    ]
    return "\n".join([*head, *pins, ""])


def _cache(cache: dict[str, Any]) -> str:
    kind = {"Data": "d", "Instruction": "i"}.get(cache["type"], "")
    return f"L{cache['level']}{kind} {cache['bytes'] // 1024} KiB"


def _usable(cores: dict[str, Any]) -> str:
    return f"{len(cores['affinity'] or range(cores['logical']))} usable by this process"


def _loads(load: dict[str, Any]) -> str:
    texts = [", ".join(f"{x:.2f}" for x in load[when] or []) for when in ("before", "after")]
    return " → ".join(text for text in texts if text)
