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


def not_installed(package: str, what: str) -> str:
    """``"LLVM IR is read with llvmlite, which is not installed: pip install llvmlite"``."""
    return f"{what} with {package}, which is not installed: pip install {package}"


def cannot_import(name: str, why: str) -> ModelError:
    """A model that TVM's importer refuses; ``why`` names the operator."""
    return ModelError(
        f"TVM cannot import {name}: {why}; replace that operator in the model, or compile the "
        "part of the network before it"
    )


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'graph'?"`` for the nearest of ``names``, empty where none is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
