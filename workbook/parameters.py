"""Parameters from the command line: names checked, values brought to the default's type.

papermill takes any name and any value and only warns (nteract/papermill#818): a typing error then
runs the default for an hour. Here it is refused before anything runs.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping
from typing import Any

from workbook.catalogue import UNKNOWN, Notebook
from workbook.errors import WorkbookError, hint

WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def resolve(
    notebooks: Iterable[Notebook], given: Mapping[str, str], profile: str
) -> dict[str, dict[str, Any]]:
    """Return what to pass to each notebook.

    Parameters
    ----------
    notebooks : iterable of Notebook
        The selected ones.
    given : mapping
        Parameter name -> text, as typed.
    profile : str
        Passed as ``profile`` to the notebooks that have such a parameter.

    Returns
    -------
    dict
        Notebook name -> {parameter: value}: those of `given` the notebook knows, and the profile.

    Raises
    ------
    WorkbookError
        For a name that no selected notebook knows, and for a value that is not of its default's
        type.
    """
    notebooks = list(notebooks)
    known = sorted({name for notebook in notebooks for name in notebook.parameters})
    for name in given:
        if name == "profile":
            raise WorkbookError("the profile is chosen with --profile, not with -p")
        if name not in known:
            names = ", ".join(notebook.name for notebook in notebooks)
            raise WorkbookError(
                f"unknown parameter {name!r} in {names}: "
                f"{hint(name, [k for k in known if k != 'profile'])}"
            )
    return {notebook.name: _of(notebook, given, profile) for notebook in notebooks}


def parse(text: str, default: Any, where: str) -> Any:
    """Read a value as the type of a default.

    Parameters
    ----------
    text : str
        As typed.
    default : object
        Its type decides: bool, int, float, str, list, tuple, dict; a default of None, or one that
        is no literal, takes any literal and else the text itself.
    where : str
        What the message names, ``"03_graph_int8: batch"`` say.

    Raises
    ------
    WorkbookError
        Where `text` is not of that type.
    """
    if default is UNKNOWN or default is None:
        return _literal_or_text(text)
    readers = {bool: _bool, int: int, float: _float, str: str, list: _list, tuple: _list}
    reader = readers.get(type(default), ast.literal_eval)
    try:
        value = reader(text)
        if isinstance(default, list | tuple):
            return _elements(value, default)
        if type(value) is type(default):
            return value
    except (ValueError, SyntaxError, TypeError):
        pass
    kind = type(default).__name__
    raise WorkbookError(f"{where} must be of type {kind}, as its default {default!r}, not {text!r}")


def _of(notebook: Notebook, given: Mapping[str, str], profile: str) -> dict[str, Any]:
    # Defaults too, so that run.json says all that was in force.
    values = {name: parameter.default for name, parameter in notebook.parameters.items()}
    for name, text in given.items():
        if name in values:
            values[name] = parse(text, values[name], f"{notebook.name}: {name}")
    if "profile" in notebook.parameters:
        values["profile"] = profile
    return values


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in WORDS:
        raise ValueError(word)
    return WORDS[word]


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _list(text: str) -> list[Any]:
    """Read ``[1, 8]``, ``1,8``, ``8``, or plain words ``resnet18,resnet50``."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if not text.strip() or any(mark in text for mark in "[](){}'\""):
            raise
        return [word.strip() for word in text.split(",")]
    return list(value) if isinstance(value, list | tuple) else [value]


def _elements(value: list[Any], default: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Check the elements against the default's, where those agree on one type."""
    kinds = {type(element) for element in default}
    if len(kinds) != 1:
        return value
    kind = kinds.pop()
    if kind is float:
        value = [float(v) if type(v) is int else v for v in value]
    if any(type(element) is not kind for element in value):
        raise TypeError(value)
    return value


def _literal_or_text(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
