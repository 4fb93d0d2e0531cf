"""From the command line to settings and variants."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from workbook import cli, paths
from workbook.peers import plan
from workbook.peers.materials import Materials
from workbook.peers.plan import Setting

MATERIALS = Materials("folder", "file x.pth", True, "8 images", "7 images")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "resnet81"], "did you mean 'resnet18'"),
        (["--peers", "openvion"], "did you mean 'openvino'"),
        (["--threads", "512"], "the processors there are"),
        (["--batch", "0"], "at least 1 image"),
        (["--batch", "one"], "no list of whole numbers"),
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--isa", "avx3"], "did you mean 'avx2'"),
        (["--isa", "avx2", "--target", "znver3"], "leave out --target"),
        (["--target", "znver33"], "knows no CPU"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(words, message, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "outputs_dir", lambda: tmp_path / "outputs")
    result = CliRunner().invoke(cli.main, ["bench", *words])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "results.csv").touch()
    result = CliRunner().invoke(cli.main, ["bench", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "not an empty folder" in result.stderr


@pytest.fixture
def _two(monkeypatch):
    monkeypatch.setattr(plan, "available", lambda: 2)


@pytest.mark.usefixtures("_two")
def test_settings():
    everything = plan.settings()
    assert len(everything) == 8
    assert Setting("resnet18", 64, 2) in everything
    assert plan.settings(["resnet50"], [], [1]) == [Setting("resnet50", 1, 1)]
    assert plan.settings(["squeezenet1_1"]) == [
        Setting("squeezenet1_1", 1, 1),
        Setting("squeezenet1_1", 1, 2),
    ]
    assert plan.settings(["resnet18"], [4]) == [Setting("resnet18", 4, 2)]


def test_settings_that_do_not_fit_the_machine_are_left_out(monkeypatch):
    monkeypatch.setattr(plan, "available", lambda: 1)
    assert {setting.threads for setting in plan.settings()} == {1}


def test_ours_is_built_twice_and_direct_beside_a_better_default(monkeypatch):
    setting = Setting("resnet18", 1, 1)
    monkeypatch.setattr(plan, "default_schedule", lambda: plan.DIRECT)
    labels = [job.label for job in plan.jobs(setting, MATERIALS, ["openvino"])]
    assert labels == [
        "ours fp32", "ours int8", "ours w4a4", "ours int8 (A/A)", "OpenVINO fp32", "OpenVINO int8",
    ]  # fmt: skip
    monkeypatch.setattr(plan, "default_schedule", lambda: "auto")
    jobs = plan.jobs(setting, MATERIALS, [], isa="avx2")
    assert [job.schedule for job in jobs] == ["", "", plan.DIRECT, plan.DIRECT, "", ""]
    assert {job.target for job in jobs} == {plan.AVX2_TARGET}
