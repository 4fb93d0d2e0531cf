"""Peak memory in a fresh process: what is seen, and what must not be."""

from __future__ import annotations

import importlib
import sys

import pytest

from relaxquant.errors import InputError
from relaxquant.measure import peak_memory

MB = 2**20

WORK = """
import os, signal, time

def allocate(megabytes):
    return b"x" * (megabytes * 2**20)

def nothing():
    return None

def use(state):
    return state[-1]

def prepare():
    return b"x" * (150 * 2**20)

def prepare_wastefully():
    b"x" * (150 * 2**20)

def ignore(state):
    return state

def fail():
    raise KeyError("the reason why")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def sleep():
    time.sleep(60)

def need(variable):
    print("chatter on standard output")
    os.environ[variable]
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A module that exists only for this test, importable here and in the child."""
    (tmp_path / "memory_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("memory_work")
    sys.modules.pop("memory_work")


def test_an_allocation_is_seen(work):
    found = peak_memory(work.allocate, 200)
    # Linux counts resident pages per processor and adds them up late: exact to some dozen pages.
    assert 199 * MB <= found.added_bytes < 215 * MB
    assert found.peak_bytes == found.baseline_bytes + found.added_bytes
    assert found.ru_maxrss_bytes >= 200 * MB


def test_nothing_needs_next_to_nothing_even_beside_a_large_parent(work):
    ballast = b"x" * (300 * MB)
    found = peak_memory(work.nothing)
    assert found.added_bytes < 5 * MB
    if found.source.startswith("VmHWM"):
        assert found.peak_bytes < 100 * MB
    assert len(ballast) == 300 * MB


def test_what_setup_leaves_is_baseline(work):
    found = peak_memory(work.use, setup=work.prepare)
    assert found.baseline_bytes > 150 * MB
    assert found.added_bytes < 5 * MB


def test_what_setup_gives_back_is_not_counted(work):
    found = peak_memory(work.ignore, setup=work.prepare_wastefully)
    if found.source != "VmHWM":
        pytest.skip(f"the peak cannot be reset on this system: {found.source}")
    assert found.peak_bytes < 100 * MB


def test_environment_reaches_the_child(work):
    with pytest.raises(RuntimeError, match="A_VARIABLE"):
        peak_memory(work.need, "A_VARIABLE")
    assert peak_memory(work.need, "A_VARIABLE", env={"A_VARIABLE": "1"}).peak_bytes > 0


def test_a_failure_says_why(work):
    with pytest.raises(RuntimeError, match=r"(?s)'fail' failed.*the reason why"):
        peak_memory(work.fail)


def test_a_killed_child_is_told_apart(work):
    with pytest.raises(RuntimeError, match=r"SIGKILL \(often: out of memory\)"):
        peak_memory(work.die)


def test_time_is_bounded(work):
    with pytest.raises(RuntimeError, match=r"longer than 0\.5 s"):
        peak_memory(work.sleep, timeout_s=0.5)


def in_a_script():
    """Stands for a function of the running script."""


def test_functions_a_child_cannot_find_are_refused(work, monkeypatch):
    with pytest.raises(InputError, match="top level of a module"):
        peak_memory(lambda: None)
    with pytest.raises(InputError, match="cannot be called"):
        peak_memory(3)
    with pytest.raises(InputError, match="setup cannot be called"):
        peak_memory(work.use, setup=3)
    monkeypatch.setattr(in_a_script, "__module__", "__main__")
    with pytest.raises(InputError, match="move it into a module"):
        peak_memory(in_a_script)
