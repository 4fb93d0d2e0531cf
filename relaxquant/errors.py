"""The errors this library raises on purpose: one message that names the thing and the way out."""

from __future__ import annotations


class RelaxQuantError(Exception):
    """Base class of all errors raised on purpose by relaxquant."""


class ModelError(RelaxQuantError, ValueError):
    """A model cannot be read: missing, corrupt, or of a kind that is not supported."""


class InputError(RelaxQuantError, ValueError):
    """An argument has the wrong name, shape, dtype or value."""


class TargetError(RelaxQuantError, ValueError):
    """The compilation target is unknown or cannot run what is asked of it."""
