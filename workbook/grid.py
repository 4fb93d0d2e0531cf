"""The grid of a sweep: which notebook runs with which values, checked before anything runs.

Values are separated by commas. A value of a list has commas itself, so lists are separated by
semicolons: ``-p widths "w8a8,w4a8;w2a2"`` are two. A list's elements one by one are the parameter's
singular: ``-p batch 1,8`` means ``batches = [1]`` and ``batches = [8]`` where a notebook has no
parameter ``batch``. A value with a comma of its own is put in double quotes.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbook.catalogue import Notebook, find, select
from workbook.errors import WorkbookError, hint
from workbook.parameters import parse, resolve


@dataclass(frozen=True)
class Point:
    """One point of the grid: a notebook with its parameters.

    Attributes
    ----------
    key : str
        Names it in the sweep's folder; says the swept values, and a hash of all that is passed.
    notebook : str
    profile : str
    given : dict
        Swept parameter -> text, as ``run`` takes it.
    """

    key: str
    notebook: str
    profile: str
    given: dict[str, str]

    @property
    def label(self) -> str:
        """The swept values in words."""
        return ", ".join(f"{name}={text}" for name, text in self.given.items())


def points(
    catalogue: dict[str, Notebook],
    words: Sequence[str],
    profile: str,
    given: Sequence[tuple[str, str]],
) -> list[Point]:
    """Return the product of the values for each notebook, each point once.

    Parameters
    ----------
    catalogue : dict
        As `workbook.catalogue.load` returns it.
    words : sequence of str
        Numbers or names of notebooks; a parameter that one of them lacks is left out there.
    profile : str
    given : sequence of (str, str)
        Parameter name and its values, as typed; a name given twice has the values of both.

    Raises
    ------
    WorkbookError
        For an unknown notebook or parameter, and for a value that is not of its default's type.
    """
    if not words:
        raise WorkbookError(f"a sweep needs a notebook: {hint('', catalogue)}")
    notebooks = [catalogue[name] for name in dict.fromkeys(find(catalogue, w) for w in words)]
    _all_known(notebooks, given)
    found: dict[str, Point] = {}
    for notebook in notebooks:
        values = _values(notebook, given)
        for chosen in itertools.product(*values.values()):
            point = _point(catalogue, notebook, profile, dict(zip(values, chosen, strict=True)))
            found.setdefault(point.key, point)
    return list(found.values())


def split(text: str, is_list: bool) -> list[str]:
    """Return the values of a text: at semicolons where it has one or is of lists, else commas."""
    mark = ";" if is_list or ";" in text else ","
    return [value.strip() for value in next(csv.reader([text], delimiter=mark), [""])]


def _all_known(notebooks: Sequence[Notebook], given: Sequence[tuple[str, str]]) -> None:
    for name, _ in given:
        if name == "profile":
            raise WorkbookError("the profile is chosen with --profile, not with -p")
        if all(_target(notebook, name) is None for notebook in notebooks):
            known = {p for n in notebooks for p in n.parameters if p != "profile"}
            names = ", ".join(notebook.name for notebook in notebooks)
            raise WorkbookError(
                f"unknown parameter {name!r} in {names}: {hint(name, sorted(known))}"
            )


def _target(notebook: Notebook, name: str) -> str | None:
    """Return the parameter that a name means: itself, or the list of which it is the singular."""
    if name in notebook.parameters:
        return name
    for plural in (f"{name}s", f"{name}es"):
        if plural in notebook.parameters and _is_list(notebook, plural):
            return plural
    return None


def _is_list(notebook: Notebook, name: str) -> bool:
    return isinstance(notebook.parameters[name].default, list | tuple | dict)


def _values(notebook: Notebook, given: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, text in given:
        target = _target(notebook, name)
        if target is None:
            continue
        for value in split(text, target == name and _is_list(notebook, name)):
            default = notebook.parameters[target].default
            read = parse(value, default, f"{notebook.name}: {name}")
            # A number as it is read, so that 1 and 01 are one point.
            text = str(read) if isinstance(read, bool | int | float) else value
            values.setdefault(target, []).append(text)
    return values


def _point(
    catalogue: dict[str, Notebook], notebook: Notebook, profile: str, given: dict[str, str]
) -> Point:
    together = select(catalogue, [notebook.name])
    passed = resolve(together, given, profile)
    return Point(_key(notebook, profile, given, passed), notebook.name, profile, given)


def _key(
    notebook: Notebook, profile: str, given: Mapping[str, str], passed: Mapping[str, Any]
) -> str:
    text = json.dumps([notebook.name, profile, passed], sort_keys=True, default=repr)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    words = "-".join([notebook.name.split("_")[0], *itertools.chain(*given.items())])
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', words).strip('-')[:60]}-{digest}"
