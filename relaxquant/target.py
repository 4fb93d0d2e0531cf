"""Targets: from the word "native" to a TVM target that names its CPU, or its GPU.

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

# Compute capabilities with dp4a, as far as NVIDIA's compilers know them by now.
CUDA_ARCHITECTURES = (
    *("sm_61", "sm_70", "sm_72", "sm_75", "sm_80", "sm_86", "sm_87", "sm_88", "sm_89", "sm_90"),
    *("sm_100", "sm_103", "sm_110", "sm_120", "sm_121"),
)


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
        "mcpu": "cortex-a76"}``. ``"cuda"`` is this machine's GPU, or sm_80 where there is none;
        ``"sm_75"`` and the like name a compute capability of NVIDIA's, as does the ``arch`` of a
        dict or target of kind ``cuda``, whose ``host`` may be another CPU than this machine's:
        ``{"kind": "cuda", "arch": "sm_87", "host": {"kind": "llvm", "mtriple":
        "aarch64-linux-gnu", "mcpu": "cortex-a78ae"}}`` is an NVIDIA Jetson.

    Raises
    ------
    TargetError
        If LLVM does not know the CPU, the compute capability is unknown or below 6.1, or the
        target is of another kind than ``llvm`` and ``cuda``.
    """
    gpu = _gpu(target)
    if gpu is not None:
        return gpu
    if isinstance(target, str):
        target = {"kind": "llvm", "mcpu": _cpu_name(target), "num-cores": physical_cores()}
    if isinstance(target, dict):
        _check_cpu(target)
        target = tvm.target.Target(target)
    if target.kind.name != "llvm":
        raise TargetError(
            f"target kind {target.kind.name!r} is not supported: CPUs (kind 'llvm') and NVIDIA's "
            "GPUs (kind 'cuda') are"
        )
    _check_cpu(target.attrs)
    return target


def resolve_cpu(target: str | dict | tvm.target.Target, who: str) -> tvm.target.Target:
    """`resolve` for what knows CPUs only; TargetError, in the name of ``who``, for GPUs."""
    resolved = resolve(target)
    if is_cuda(resolved):
        raise TargetError(f"{who} knows CPUs only, not {name(resolved)}: name a CPU, or 'native'")
    return resolved


def _gpu(target: str | dict | tvm.target.Target) -> tvm.target.Target | None:
    """The target of an NVIDIA GPU that is meant; None where none is."""
    if isinstance(target, str):
        is_arch = target.startswith("sm_")
        target = {"kind": "cuda", "arch": target} if is_arch else {"kind": target}
    elif isinstance(target, tvm.target.Target):
        arch = target.attrs.get("arch", "")
        target = {"kind": target.kind.name, "arch": arch, "host": target.host}
    if target.get("kind") != "cuda":
        return None
    arch = str(target.get("arch", "")) or _arch_here()
    if arch not in CUDA_ARCHITECTURES:
        raise TargetError(
            f"there are no kernels for compute capability {arch!r}: dp4a came with sm_61, and "
            f"known are {', '.join(CUDA_ARCHITECTURES)}"
        )
    # How many threads a block may have is the same for all; TVM would ask a GPU for it.
    options = {"kind": "cuda", "arch": arch, "max_num_threads": 1024, "thread_warp_size": 32}
    return tvm.target.Target(options, host=resolve(target.get("host") or "native"))


def _arch_here() -> str:
    """Compute capability of this machine's GPU; sm_80 without one."""
    device = tvm.cuda(0)
    return arch_of(device) if device.exist else "sm_80"


def arch_of(device: tvm.runtime.Device) -> str:
    """Compute capability of a GPU that is there, as a target's ``arch``."""
    return f"sm_{device.compute_version.replace('.', '')}"


def is_cuda(target: tvm.target.Target) -> bool:
    """Whether ``target`` is a GPU of NVIDIA's."""
    return target.kind.name == "cuda"


def compute_capability(target: tvm.target.Target) -> int:
    """That of a CUDA target as one number, 75 for sm_75."""
    return int(str(target.attrs["arch"]).removeprefix("sm_"))


def triple(target: tvm.target.Target) -> str:
    """LLVM triple of a CPU, or of a GPU's host, for example ``"aarch64-linux-gnu"``."""
    target = target.host if is_cuda(target) else target
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
    """LLVM's name of the CPU or the GPU's compute capability; the whole target without either."""
    if is_cuda(target):
        return f"cuda {target.attrs['arch']}"
    return str(target.attrs.get("mcpu", "")) or str(target)


def physical_cores() -> int:
    """Number of physical cores this process may use, at least 1."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def features(target: tvm.target.Target) -> frozenset[str]:
    """LLVM feature names of ``target``, for example ``{"avx2", "fma", "avx512vnni"}``."""
    return frozenset(str(name) for name in codegen.llvm_get_cpu_features(target))
