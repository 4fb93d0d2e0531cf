"""The facts about this machine and this software that a figure cannot be read without."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from .cpuinfo import read_cpu

PACKAGES = (
    "relaxquant", "apache-tvm", "apache-tvm-ffi", "numpy", "torch", "torchvision", "tflite",
    "onnx", "onnxruntime", "openvino", "ai-edge-litert", "torchao",
)  # fmt: skip

THREAD_VARIABLES = (
    "TVM_NUM_THREADS", "TVM_BIND_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)  # fmt: skip

# Strongest first: the one that decides how fast 8-bit products can be summed.
_BEST_FOR_INT8 = {
    "amx_int8": "AMX int8",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512bw": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "NEON i8mm",
    "asimddp": "NEON dot product",
    "neon": "NEON",
    "avx": "AVX",
    "sse4_2": "SSE4.2",
}


def facts() -> dict[str, Any]:
    """Everything that a figure depends on, as JSON-able values.

    Returns
    -------
    dict
        name: `short_name`.
        cpu: what `cpuinfo.read_cpu` returns, and architecture.
        cores: physical, logical, affinity (list of CPU numbers this process may use, None where the
        system does not tell), quota (CPUs a container is limited to, None for no limit).
        memory_bytes: of the machine. os, python: names with versions.
        packages: version of each of PACKAGES that is installed.
        git: revision (None where there is none) and dirty (None likewise) of the checkout that this
        code runs from.
        threads: those of THREAD_VARIABLES that are set. load: `load_average` now.
    """
    cpu = read_cpu() | {"architecture": platform.machine()}
    cores = core_counts()
    return {
        "name": describe(cpu, cores),
        "cpu": cpu,
        "cores": cores,
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": package_versions(),
        "git": git_state(),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "load": load_average(),
    }


def short_name() -> str:
    """This machine in a caption: "AMD EPYC, 2 cores, AVX-512 VNNI"."""
    return describe(read_cpu(), core_counts())


def describe(cpu: dict[str, Any], cores: dict[str, Any]) -> str:
    """One line for a machine, from the `cpu` and `cores` of its `facts`."""
    model = re.sub(r"\((R|TM|r|tm|C)\)|\bCPU\b|\bProcessor\b|@.*$|\b\d+-Core\b", " ", cpu["model"])
    parts = [" ".join(model.split()), _cores_in_words(cores)]
    best = next((word for name, word in _BEST_FOR_INT8.items() if name in cpu["features"]), None)
    return ", ".join(parts + ([best] if best else []))


def _cores_in_words(cores: dict[str, Any]) -> str:
    usable = len(cores["affinity"]) if cores["affinity"] else cores["logical"]
    if usable < cores["logical"]:
        return f"{usable} of {cores['logical']} hardware threads"
    return "1 core" if cores["physical"] == 1 else f"{cores['physical']} cores"


def core_counts(cgroup: Path = Path("/sys/fs/cgroup")) -> dict[str, Any]:
    """Physical and logical cores, and what of them this process may use: see `facts`."""
    logical = psutil.cpu_count() or 1
    affinity = None
    if hasattr(os, "sched_getaffinity"):
        affinity = sorted(os.sched_getaffinity(0))
    return {
        "physical": psutil.cpu_count(logical=False) or logical,
        "logical": logical,
        "affinity": affinity,
        "quota": _cpu_quota(cgroup),
    }


def _cpu_quota(cgroup: Path) -> float | None:
    """CPUs' worth of time that a container may use (cgroup v2, cpu.max); None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def load_average() -> list[float] | None:
    """Load over the last 1, 5 and 15 minutes; None where the system does not tell."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Version of each package of these that is installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path = Path(__file__).parent) -> dict[str, Any]:
    """Git revision of the checkout that holds `folder`, and whether it has changes.

    Parameters
    ----------
    folder : Path
        Defaults to where this code lies. A folder that git ignores, such as an environment inside a
        checkout, is not part of it.

    Returns
    -------
    dict
        revision: 40 hex digits, None outside a checkout or before the first commit. dirty: whether
        `git status` lists anything, untracked files included; None outside a checkout.
    """
    status = _git(folder, "status", "--porcelain")
    if status is None or _git(folder, "check-ignore", "--quiet", str(folder)) is not None:
        return {"revision": None, "dirty": None}
    return {"revision": _git(folder, "rev-parse", "--verify", "HEAD"), "dirty": bool(status)}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, None where it fails or is not there."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
