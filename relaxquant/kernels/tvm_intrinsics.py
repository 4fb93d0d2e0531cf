"""TVM's own tensor intrinsics: its tuner and its rules for tensor cores import them when needed."""

from __future__ import annotations

import functools
import inspect


@functools.cache
def import_intrinsics() -> None:
    """Import them in 5 instead of 40 s.

    They are TVMScript, whose parser asks for a function's module once for every node.
    """
    original = inspect.getmodule
    inspect.getmodule = functools.cache(original)
    try:
        import tvm.s_tir.tensor_intrin  # noqa: F401
    finally:
        inspect.getmodule = original
