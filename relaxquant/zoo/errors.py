"""Errors that the zoo raises."""

from __future__ import annotations

from ..errors import RelaxQuantError


class ZooError(RelaxQuantError, RuntimeError):
    """A model, weight file or image set that cannot be had; the message says the way out."""


class FetchError(ZooError):
    """One provider could not deliver; a provider chain goes on to its next step."""
