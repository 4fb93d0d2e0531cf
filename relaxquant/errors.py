"""The errors this library raises on purpose: one message that names the thing and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RelaxQuantError(Exception):
    """Base class of all errors raised on purpose by relaxquant."""


class ModelError(RelaxQuantError, ValueError):
    """A model cannot be read: missing, corrupt, or of a kind that is not supported."""


class InputError(RelaxQuantError, ValueError):
    """An argument has the wrong name, shape, dtype or value."""


class TargetError(RelaxQuantError, ValueError):
    """The compilation target is unknown or cannot run what is asked of it."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'graph'?"`` for the nearest of ``names``, empty where none is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
