"""For all tests: nothing compiled by one test, or before, is met by another."""

from __future__ import annotations

import os

# Tests replace parts of the library and compile again; the cache cannot see that. It has its own
# tests, in tests/executors/test_cache.py.
os.environ["RELAXQUANT_COMPILE_CACHE"] = "0"
