"""The thread that times: kept to one processor meanwhile, and free again after it."""

from __future__ import annotations

import os

import pytest

from relaxquant.executors import threads

AVAILABLE = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


@pytest.mark.skipif(len(AVAILABLE) < 2, reason="there is but one processor to run on")
def test_the_caller_is_bound_only_meanwhile_and_only_with_others():
    with threads.bound(1):
        assert os.sched_getaffinity(0) == AVAILABLE
    with pytest.raises(ZeroDivisionError), threads.bound(2):
        assert os.sched_getaffinity(0) == {min(AVAILABLE)}
        _ = 1 / 0
    assert os.sched_getaffinity(0) == AVAILABLE
