"""What the project says of itself in several files must be the same in all of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from workbook import paths

ROOT = paths.root()


def pins():
    """Return name -> version of env/requirements.txt and of those for peers, fleet and CUDA."""
    kinds = ("", "-peers", "-fleet", "-cuda")
    files = [ROOT / "env" / f"requirements{kind}.txt" for kind in kinds]
    lines = [line for file in files for line in file.read_text().splitlines()]
    wanted = [Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in wanted}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def wanted(project):
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [Requirement(text) for texts in lists for text in texts]
    return [r for r in found if r.name != "relaxquant"]


def test_every_pin_is_exact():
    assert all(re.fullmatch(r"[0-9][\w.]*", version) for version in pins().values()), pins()


def test_package_metadata_and_pins_agree(project):
    pinned = pins()
    for requirement in wanted(project):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"pyproject.toml wants {name}, env/requirements.txt does not pin it"
        assert requirement.specifier.contains(pinned[name]), requirement
    named = {canonicalize_name(r.name) for r in wanted(project)}
    assert set(pinned) <= named, "pinned, but named in no dependency list of pyproject.toml"


def test_conda_environment_includes_the_pip_files(project):
    content = yaml.safe_load((ROOT / "env" / "environment.yml").read_text())
    (pip,) = [d["pip"] for d in content["dependencies"] if isinstance(d, dict)]
    for line in pip:
        kind, place = line.split()
        assert kind in ("-r", "-e")
        assert (ROOT / "env" / place).exists(), line
    (python,) = [d for d in content["dependencies"] if str(d).startswith("python=")]
    assert project["requires-python"] == f">={python.removeprefix('python=')}"


def test_citation_and_licence_match(project):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_precommit_tools_are_installed():
    content = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    modules = [hook["entry"].split()[2] for repo in content["repos"] for hook in repo["hooks"]]
    assert sorted(modules) == ["nbstripout", "ruff"]
    assert all(find_spec(module) for module in modules)


def make(*words, folder=ROOT):
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True)


needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


@needs_make
def test_make_alone_lists_the_targets():
    listed = make().stdout
    for target in ("help", "env", "peers", "run", "bench", "test", "lab", "lint", "clean"):
        assert re.search(rf"^  {target} +\S", listed, re.M), target


@pytest.fixture
def bare(tmp_path):
    """Return a checkout with no environment."""
    (tmp_path / "env").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    wanted = "torch==2.13.0   # why\ntorchvision==0.28.0\n"
    (tmp_path / "env" / "requirements.txt").write_text(wanted)
    for kind in ("dev", "cuda"):
        (tmp_path / "env" / f"requirements-{kind}.txt").touch()
    return tmp_path


@needs_make
def test_old_python_is_refused_with_the_way_out(bare):
    old = bare / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    done = make("test", f"PYTHON={old}", folder=bare)
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "says: Python 3.9.2" in done.stderr
    assert "make test PYTHON=python3.11" in done.stderr
    assert not (bare / ".venv").exists()


@needs_make
def test_environment_is_made_when_missing_or_old_and_torch_comes_first(bare):
    fresh = make("-n", "test", f"PYTHON={sys.executable}", folder=bare).stdout
    installs = [line for line in fresh.splitlines() if "pip install" in line]
    assert [line.split()[-1] for line in installs] == [
        "torch==2.13.0", "env/requirements-dev.txt", ".",
    ]  # fmt: skip
    (bare / ".venv").mkdir()
    (bare / ".venv" / ".stamp").touch()
    assert "pip install" not in make("-n", "test", folder=bare).stdout
    os.utime(bare / "env" / "requirements.txt", (2**31, 2**31))
    assert "pip install" in make("-n", "test", folder=bare).stdout


def test_continuous_integration_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()
