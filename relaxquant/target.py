"""Targets: from the word "native" to a TVM target that names its CPU.

A bare ``llvm`` target is the classic reason why int8 looked slower than fp32 in TVM: it compiles
for a baseline x86 without AVX2. So the CPU is always named here, and features are read back from
LLVM rather than guessed.
"""

from __future__ import annotations

from collections.abc import Mapping

import psutil
import tvm
from tvm.target import codegen

from .errors import TargetError


def resolve(target: str | dict | tvm.target.Target = "native") -> tvm.target.Target:
    """Return the TVM target meant by ``target``.

    Parameters
    ----------
    target : str, dict or tvm.target.Target
        ``"native"`` is this machine's CPU; another plain word such as ``"znver3"`` or
        ``"cascadelake"`` is an LLVM CPU name for this machine's architecture; ``"generic"`` is the
        architecture's baseline, which has none of the intrinsics. A dict or a
        ``tvm.target.Target`` of kind ``llvm`` is taken as it is; with its ``mtriple`` it may be a
        CPU of another architecture, such as ``{"kind": "llvm", "mtriple": "aarch64-linux-gnu",
        "mcpu": "cortex-a76"}``.

    Raises
    ------
    TargetError
        If LLVM does not know the CPU, or the target is not of kind ``llvm``.
    """
    if isinstance(target, str):
        target = {"kind": "llvm", "mcpu": _cpu_name(target), "num-cores": physical_cores()}
    if isinstance(target, dict):
        _check_cpu(target)
        target = tvm.target.Target(target)
    if target.kind.name != "llvm":
        raise TargetError(
            f"target kind {target.kind.name!r} is not supported: CPU targets only (kind 'llvm')"
        )
    _check_cpu(target.attrs)
    return target


def triple(target: tvm.target.Target) -> str:
    """LLVM triple that ``target`` is compiled for, for example ``"aarch64-linux-gnu"``."""
    return str(target.attrs.get("mtriple", "")) or codegen.llvm_get_system_triple()


def runs_here(target: tvm.target.Target) -> bool:
    """Whether ``target`` is of this machine's architecture; its CPU may still be another."""
    here = codegen.llvm_get_system_triple()
    return triple(target).split("-")[0] == here.split("-")[0]


def _check_cpu(options: Mapping) -> None:
    """Raise TargetError for a CPU or an architecture that LLVM would replace by its baseline."""
    if options.get("kind", "llvm") != "llvm":
        return
    where = str(options.get("mtriple", "")) or codegen.llvm_get_system_triple()
    if not codegen.llvm_is_valid_cpu("generic", where):
        raise TargetError(
            f"LLVM {codegen.llvm_version_major()} knows no architecture {where!r}; an mtriple is a "
            "name like 'aarch64-linux-gnu' or 'x86_64-linux-gnu'"
        )
    cpu = str(options.get("mcpu", ""))
    if cpu and not codegen.llvm_is_valid_cpu(cpu, where):
        raise TargetError(
            f"LLVM {codegen.llvm_version_major()} knows no CPU {cpu!r} for {where}; another "
            "architecture's needs its mtriple beside it, such as 'aarch64-linux-gnu'"
        )


def _cpu_name(word: str) -> str:
    if word == "native":
        return codegen.llvm_get_system_cpu()
    if word == "generic":
        # LLVM calls the 64-bit x86 baseline by this name and every other baseline "generic".
        return "x86-64" if codegen.llvm_get_system_triple().startswith("x86_64") else "generic"
    if not codegen.llvm_is_valid_cpu(word, codegen.llvm_get_system_triple()):
        raise TargetError(
            f"LLVM {codegen.llvm_version_major()} knows no CPU {word!r}; use 'native', 'generic', "
            "an LLVM CPU name such as 'znver3' or 'cascadelake', or a tvm.target.Target"
        )
    return word


def name(target: tvm.target.Target) -> str:
    """LLVM's name of the CPU that is compiled for, or the whole target where it names none."""
    return str(target.attrs.get("mcpu", "")) or str(target)


def physical_cores() -> int:
    """Number of physical cores this process may use, at least 1."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def features(target: tvm.target.Target) -> frozenset[str]:
    """LLVM feature names of ``target``, for example ``{"avx2", "fma", "avx512vnni"}``."""
    return frozenset(str(name) for name in codegen.llvm_get_cpu_features(target))
