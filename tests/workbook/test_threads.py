from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from workbook import threads
from workbook.errors import WorkbookError


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in threads.VARIABLES:
        monkeypatch.setenv(name, "")
    monkeypatch.delitem(sys.modules, "tvm", raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_every_framework_gets_the_count():
    assert threads.fix(3) == 3
    assert {os.environ[name] for name in threads.VARIABLES} == {"3"}


@pytest.mark.parametrize("asked", [None, 0])
def test_none_means_all(asked):
    assert threads.fix(asked) == threads.available() >= 1


@pytest.mark.parametrize("asked", [-1, 1.5, "2", True])
def test_bad_count_is_refused(asked):
    with pytest.raises(WorkbookError, match="threads must be a whole number"):
        threads.fix(asked)


def test_tvm_imported_with_another_count_is_refused(monkeypatch):
    threads.fix(2)
    monkeypatch.setitem(sys.modules, "tvm", ModuleType("tvm"))
    assert threads.fix(2) == 2
    with pytest.raises(WorkbookError, match="restart the kernel"):
        threads.fix(1)
    assert os.environ["TVM_NUM_THREADS"] == "2"


def test_imported_torch_is_told(monkeypatch):
    told = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=told.append))
    threads.fix(2)
    assert told == [2]
