"""For all tests: nothing compiled by one test, or before, is met by another."""

from __future__ import annotations

import os
import sys

import pytest

# Tests replace parts of the library and compile again; the cache cannot see that. It has its own
# tests, in tests/executors/test_cache.py.
os.environ["RELAXQUANT_COMPILE_CACHE"] = "0"


@pytest.fixture(autouse=True)
def emitted_anew():
    """Kernels are emitted by the code as the test has it."""
    emit = sys.modules.get("relaxquant.lower.emit")
    if emit is not None:
        emit.PRIM_FUNCS.clear()
