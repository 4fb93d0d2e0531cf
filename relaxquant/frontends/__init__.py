"""Frontends: from other frameworks' models to fp32 or QDQ Relax."""

from .torch import from_torch

__all__ = ["from_torch"]
