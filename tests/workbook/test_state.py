from __future__ import annotations

import json

import pytest

from workbook import state
from workbook.errors import WorkbookError


def test_state_comes_back_as_it_was(tmp_path):
    before = state.State("2026-01-01T00:00:00+00:00", "full", {"batch": "8"})
    before.notebooks["01_a"] = state.Entry(state.OK, "A", {"batch": 8}, "f" * 64, 1.5)
    error = {"name": "ValueError", "value": "x", "cell": 3, "source": "raise"}
    before.notebooks["02_b"] = state.Entry(state.FAILED, error=error)
    before.save(tmp_path)
    assert state.load(tmp_path) == before
    assert before.finished() == ["01_a"]


def test_folder_without_run_is_refused(tmp_path):
    with pytest.raises(WorkbookError, match="holds no run"):
        state.load(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"version": 99}', '{"version": 1, "notebooks": {}}']
)
def test_unreadable_state_is_refused(tmp_path, content):
    (tmp_path / state.FILE).write_text(content)
    with pytest.raises(WorkbookError, match=r"state\.json cannot be read"):
        state.load(tmp_path)


def test_latest_goes_by_the_time_of_creation(tmp_path):
    for name, created in (("b", "2026-01-01T00:00:00+00:00"), ("a", "2026-02-01T00:00:00+00:00")):
        (tmp_path / name).mkdir()
        state.State(created, "quick", {}).save(tmp_path / name)
    (tmp_path / "interactive").mkdir()
    assert state.latest(tmp_path).name == "a"


def test_no_run_is_said(tmp_path):
    with pytest.raises(WorkbookError, match="no run in"):
        state.latest(tmp_path)


def test_interrupted_write_keeps_the_old_state(tmp_path, monkeypatch):
    state.State("2026-01-01T00:00:00+00:00", "quick", {}).save(tmp_path)
    later = state.State("2026-01-01T00:00:00+00:00", "full", {})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        later.save(tmp_path)
    assert state.load(tmp_path).profile == "quick"
    assert [path.name for path in tmp_path.iterdir()] == [state.FILE]
    assert json.loads((tmp_path / state.FILE).read_text())["version"] == state.VERSION
