"""Kernels: from a layer and a target to a TIR function and its packed parameters.

Arrows run downwards: `registry` and `schedules` over the kernels, the kernels over `intrinsics`.
"""

from . import schedules  # fills the schedule table
from .registry import implement_conv2d, register, schedule_names

__all__ = ["implement_conv2d", "register", "schedule_names", "schedules"]
