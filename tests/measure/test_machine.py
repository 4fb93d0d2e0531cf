"""Machine facts: read from this machine, and from descriptions of others."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess

import pytest

from relaxquant.measure import facts, load_average, short_name
from relaxquant.measure.cpuinfo import parse_cpuinfo, parse_sysctl, read_caches, read_cpu
from relaxquant.measure.machine import core_counts, describe, git_state, package_versions

INTEL = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz
flags\t\t: fpu sse4_2 fma avx avx2 f16c avx512f avx512bw avx512vl avx512_vnni

processor\t: 1
model name\t: something else
flags\t\t: fpu
"""

ZEN3 = """\
processor\t: 0
model name\t: AMD EPYC 7763 64-Core Processor
flags\t\t: fpu hypervisor sse4_2 fma avx f16c avx2
"""

NEOVERSE = """\
processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes fphp asimdhp cpuid asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
"""

RASPBERRY = """\
processor\t: 0
Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4
CPU implementer\t: 0x41
CPU part\t: 0xd08

Hardware\t: BCM2711
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""

APPLE = """\
machdep.cpu.brand_string: Apple M2
hw.optional.arm64: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
"""

INTEL_MAC = """\
machdep.cpu.brand_string: Intel(R) Core(TM) i7-8750H CPU @ 2.20GHz
hw.optional.avx2_0: 1
hw.optional.avx512f: 0
"""

FOUR_CORES = {"physical": 4, "logical": 8, "affinity": list(range(8)), "quota": None}


def test_x86_is_read():
    found = parse_cpuinfo(INTEL)
    assert found["model"] == "Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz"
    assert found["features"][-1] == "avx512_vnni"
    assert "fpu" not in found["features"]
    assert found["virtual"] is False
    assert parse_cpuinfo(ZEN3)["virtual"] is True


def test_arm_is_read():
    server = parse_cpuinfo(NEOVERSE)
    assert server["model"] == "Neoverse-N1"
    assert server["features"] == ["neon", "asimdhp", "asimddp"]
    assert server["virtual"] is None
    board = parse_cpuinfo(RASPBERRY)
    assert board["model"] == "Raspberry Pi 4 Model B Rev 1.4 (Cortex-A72)"
    assert board["features"] == ["neon"]


def test_an_unlisted_arm_core_is_named_by_number():
    text = NEOVERSE.replace("0xd0c", "0xfff")
    assert parse_cpuinfo(text)["model"] == "ARM part 0xfff"
    text = text.replace("0x41", "0x99")
    assert parse_cpuinfo(text)["model"] == "implementer 0x99 part 0xfff"


def test_macos_is_read():
    assert parse_sysctl(APPLE)["features"] == ["neon", "asimddp", "i8mm"]
    assert parse_sysctl(INTEL_MAC)["features"] == ["avx2"]


@pytest.mark.parametrize(
    ("cpu", "words"),
    [
        (parse_cpuinfo(INTEL), "Intel Xeon Gold 6248, 4 cores, AVX-512 VNNI"),
        (parse_cpuinfo(ZEN3), "AMD EPYC 7763, 4 cores, AVX2"),
        (parse_cpuinfo(NEOVERSE), "Neoverse-N1, 4 cores, NEON dot product"),
        (parse_sysctl(APPLE), "Apple M2, 4 cores, NEON i8mm"),
        (parse_sysctl(INTEL_MAC), "Intel Core i7-8750H, 4 cores, AVX2"),
        ({"model": "unknown machine", "features": []}, "unknown machine, 4 cores"),
    ],
)
def test_a_machine_in_one_line(cpu, words):
    assert describe(cpu, FOUR_CORES) == words


def test_cores_that_may_not_be_used_do_not_count():
    cpu = parse_cpuinfo(ZEN3)
    assert "2 of 8 hardware threads" in describe(cpu, FOUR_CORES | {"affinity": [0, 1]})
    one = {"physical": 1, "logical": 1, "affinity": None, "quota": None}
    assert "1 core," in describe(cpu, one)


def test_caches_are_read(tmp_path):
    for index, (level, kind, size) in enumerate([("1", "Data", "32K"), ("3", "Unified", "32M")]):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "level").write_text(level + "\n")
        (folder / "type").write_text(kind + "\n")
        (folder / "size").write_text(size + "\n")
    (tmp_path / "index9").mkdir()
    assert read_caches(tmp_path) == [
        {"level": 1, "type": "Data", "bytes": 32 * 2**10},
        {"level": 3, "type": "Unified", "bytes": 32 * 2**20},
    ]
    assert read_caches(tmp_path / "absent") == []


def test_a_quota_is_read(tmp_path):
    assert core_counts(tmp_path)["quota"] is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert core_counts(tmp_path)["quota"] == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert core_counts(tmp_path)["quota"] is None


def test_facts_are_json_and_name_this_machine():
    found = facts()
    assert json.loads(json.dumps(found)) == found
    assert found["name"] == short_name()
    assert found["cores"]["logical"] >= 1
    assert found["packages"]["numpy"]
    assert found["memory_bytes"] > 2**28
    assert set(found["git"]) == {"revision", "dirty"}


def test_fixed_threads_are_recorded(monkeypatch):
    monkeypatch.setenv("TVM_NUM_THREADS", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = facts()["threads"]
    assert threads["TVM_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in threads


@pytest.mark.parametrize("system", ["Darwin", "Plan9"])
def test_a_system_that_tells_nothing_does_not_raise(system, monkeypatch, tmp_path):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setenv("PATH", str(tmp_path))  # no sysctl, no git
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    cpu = read_cpu(tmp_path / "cpuinfo", tmp_path / "cpu")
    assert cpu["model"] and cpu["features"] == [] and cpu["caches"] == []
    assert core_counts(tmp_path)["affinity"] is None
    assert load_average() is None
    assert git_state() == {"revision": None, "dirty": None}


def test_absent_packages_are_left_out():
    assert set(package_versions(("numpy", "no-such-package-anywhere"))) == {"numpy"}


@pytest.fixture
def checkout(tmp_path):
    """An empty git checkout, and a function that runs git in it."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    git("init")
    return tmp_path, git


def test_git_revision_and_dirty_flag(checkout):
    folder, git = checkout
    assert git_state(folder) == {"revision": None, "dirty": False}
    (folder / "file").write_text("1")
    assert git_state(folder) == {"revision": None, "dirty": True}
    git("add", "file")
    git("commit", "-m", "first")
    clean = git_state(folder)
    assert clean["dirty"] is False
    assert len(clean["revision"]) == 40
    (folder / "file").write_text("2")
    assert git_state(folder) == {"revision": clean["revision"], "dirty": True}


def test_an_ignored_folder_is_not_the_checkout(checkout):
    folder, _ = checkout
    (folder / ".gitignore").write_text(".venv/\n")
    installed = folder / ".venv" / "lib"
    installed.mkdir(parents=True)
    assert git_state(installed) == {"revision": None, "dirty": None}


def test_outside_a_checkout_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == {"revision": None, "dirty": None}
