"""Tuning: time the kernels that a layer could get, once, and keep the fastest."""

from .session import tune

__all__ = ["tune"]
