"""The command line as it is typed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests import waiting
from workbook import cli, paths, state


@pytest.fixture
def folder(tmp_path, notebook, monkeypatch):
    notebook(tmp_path / "nb", "01_fp32_compile", "x = 1")
    notebook(tmp_path / "nb", "03_graph_int8", "x = 1", needs=["01_fp32_compile"])
    monkeypatch.setenv(paths.NOTEBOOKS_VARIABLE, str(tmp_path / "nb"))
    return tmp_path


def call(*words):
    return CliRunner().invoke(cli.main, words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "03", "-p", "btach", "8"], "did you mean 'batch'"),
        (["run", "-p", "batch", "abc", "03"], "batch must be of type int"),
        (["run", "graf_int8"], "did you mean '03_graph_int8'"),
        (["run", "--resume"], "no run in"),
        (["run", "--profile", "fast"], "'fast' is not one of 'quick', 'full'"),
        (["run", "-p", "batch"], "requires 2 arguments"),
        (["report", "nowhere"], "no run 'nowhere'"),
        (["rnu"], "No such command 'rnu'"),
    ],
)
def test_bad_command_is_one_line_and_code_2(folder, words, message):
    result = call(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (folder / "outputs").exists()


def test_list_shows_titles_parameters_and_needs(folder):
    result = call("list")
    assert result.exit_code == 0
    for part in ("01_fp32_compile", "Question of", "batch = 1", "needs 01_fp32_compile"):
        assert part in " ".join(result.output.split()), part


def test_help_of_the_program_run_as_a_module():
    command = [sys.executable, "-m", "workbook", "run", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=paths.root())
    assert done.returncode == 0
    assert "--resume" in done.stdout


def test_interrupt_ends_the_kernel_and_resume_goes_on(folder, notebook):
    """Ctrl-C in a real run: exit 130, a report, no kernel left; resume finishes; report again."""
    mark = folder / "kernel.pid"
    slow = f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    notebook(folder / "nb", "01_fp32_compile", slow)
    command = [sys.executable, "-m", "workbook", "run", "01", "--out", str(folder / "run")]
    process = subprocess.Popen(
        command, cwd=paths.root(), stdout=subprocess.PIPE, text=True,
        preexec_fn=waiting.heed_interrupts,
    )  # fmt: skip
    try:
        waiting.until(lambda: mark.exists() and mark.read_text(), "the kernel's mark", process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=waiting.SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Report:" in output
    entry = state.load(folder / "run").notebooks["01_fp32_compile"]
    assert (entry.status, entry.reason) == ("interrupted", "stopped by the user")
    waiting.until(lambda: waiting.is_gone(int(mark.read_text())), "the kernel's end")

    notebook(folder / "nb", "01_fp32_compile", "x = 2")
    result = call("run", "--resume", "--out", str(folder / "run"))
    assert result.exit_code == 0
    assert "ok  01_fp32_compile" in result.output
    (folder / "run" / "index.html").unlink()
    assert call("report", str(folder / "run")).exit_code == 0
    assert (folder / "run" / "index.html").is_file()
