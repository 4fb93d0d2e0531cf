"""What the operating system says of the CPU: name, instruction sets, caches.

Linux first (/proc and /sys), then macOS (sysctl). Each reader takes text or a folder, so that it
can be tried on machines that are not at hand.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Instruction sets that matter to a quantized network, weakest first, under Linux' names for x86.
X86_FEATURES = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_bf16",
    "avx512_fp16", "avx_vnni", "avx_vnni_int8", "avx512_vnni", "amx_bf16", "amx_int8",
)  # fmt: skip

# Likewise for ARM: the names of /proc/cpuinfo, and of macOS' sysctl keys, to the ones used here.
_ARM_LINUX = {"neon": "neon", "asimd": "neon"} | {
    name: name for name in ("asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")
}
_ARM_MACOS = {
    "hw.optional.neon": "neon",
    "hw.optional.AdvSIMD": "neon",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
}
_X86_MACOS = {
    "hw.optional.sse4_2": "sse4_2",
    "hw.optional.avx1_0": "avx",
    "hw.optional.f16c": "f16c",
    "hw.optional.fma": "fma",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512bw": "avx512bw",
    "hw.optional.avx512vl": "avx512vl",
    "hw.optional.avx512vnni": "avx512_vnni",
}
ARM_FEATURES = tuple(dict.fromkeys(_ARM_LINUX.values()))

# ARM cores name themselves by number only: Linux, arch/arm64/include/asm/cputype.h.
_ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
}
_ARM_MAKERS = {
    "0x41": "ARM",
    "0x46": "Fujitsu",
    "0x51": "Qualcomm",
    "0x61": "Apple",
    "0xc0": "Ampere",
}


def read_cpu(
    proc: Path = Path("/proc/cpuinfo"), sys_cpu: Path = Path("/sys/devices/system/cpu")
) -> dict[str, Any]:
    """Name, instruction sets and caches of this machine's CPU.

    Parameters
    ----------
    proc, sys_cpu : Path
        Where Linux tells; replaced in tests.

    Returns
    -------
    dict
        model (str), features (list of str, in the order of X86_FEATURES or ARM_FEATURES), virtual
        (whether a hypervisor shows itself; None where that cannot be told), caches (see
        `read_caches`), governor (str or None: the frequency policy). Nothing unknown raises:
        `model` is then what Python knows, the lists are empty.
    """
    text = _text(proc)
    if text:
        found = parse_cpuinfo(text)
    elif platform.system() == "Darwin":
        found = parse_sysctl(_sysctl())
    else:
        found = {"model": None, "features": [], "virtual": None}
    fallback = platform.processor() or platform.machine() or "unknown machine"
    found["model"] = found["model"] or fallback
    found["caches"] = read_caches(sys_cpu / "cpu0" / "cache")
    found["governor"] = _text(sys_cpu / "cpu0" / "cpufreq" / "scaling_governor").strip() or None
    return found


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """Read the text of Linux' /proc/cpuinfo, x86 or ARM, into model, features and virtual."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            # The first processor speaks for all; the board's own "Model" stands below them.
            fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    if "flags" in fields:
        features = _in_order(flags, X86_FEATURES)
        return {
            "model": fields.get("model name"),
            "features": features,
            "virtual": "hypervisor" in flags,
        }
    features = _in_order({_ARM_LINUX[flag] for flag in flags & _ARM_LINUX.keys()}, ARM_FEATURES)
    return {"model": _arm_model(fields), "features": features, "virtual": None}


def _arm_model(fields: dict[str, str]) -> str | None:
    maker, part = fields.get("CPU implementer", ""), fields.get("CPU part", "")
    core = _ARM_CORES.get((maker, part))
    if core is None and maker:
        core = f"{_ARM_MAKERS.get(maker, f'implementer {maker}')} part {part}"
    board = fields.get("Model") or fields.get("Hardware")
    if board and core:
        return f"{board} ({core})"
    return board or core or fields.get("model name") or fields.get("Processor")


def parse_sysctl(text: str) -> dict[str, Any]:
    """Read what macOS' `sysctl machdep.cpu hw.optional` prints into model, features and virtual."""
    fields = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields[key.strip()] = value.strip()
    names = _ARM_MACOS | _X86_MACOS
    flags = {name for key, name in names.items() if fields.get(key) == "1"}
    if fields.get("hw.optional.arm64") == "1":
        flags.add("neon")
    features = _in_order(flags, ARM_FEATURES + X86_FEATURES)
    return {
        "model": fields.get("machdep.cpu.brand_string"),
        "features": features,
        "virtual": None,
    }


def read_caches(folder: Path) -> list[dict[str, Any]]:
    """Caches of the first core: level, type and bytes each; empty where Linux does not say."""
    caches = []
    for index in sorted(folder.glob("index*")):
        level, size = _text(index / "level").strip(), _text(index / "size").strip()
        match = re.fullmatch(r"(\d+)([KMG]?)", size)
        if level.isdigit() and match:
            scale = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[match[2]]
            kind = _text(index / "type").strip()
            caches.append({"level": int(level), "type": kind, "bytes": int(match[1]) * scale})
    return caches


def _in_order(found: Iterable[str], order: Iterable[str]) -> list[str]:
    found = set(found)
    return [name for name in order if name in found]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _sysctl() -> str:
    command = ["sysctl", "machdep.cpu", "hw.optional"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
