"""PTX and SASS of CUDA text, by what NVIDIA's packages or toolkit offer on this machine."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import TargetError
from . import nvrtc

_SECTION = re.compile(r"^\s*\.section\s+\.text\.([^,\s]+)", re.MULTILINE)
_ENTRY = re.compile(r"^\.visible \.entry (\w+)\(", re.MULTILINE)


def ptx(text: str, arch: str) -> str:
    """PTX of CUDA text, by NVRTC, else by nvcc.

    Parameters
    ----------
    text : str
        CUDA C++ as TVM generates it.
    arch : str
        ``"sm_80"`` and the like.

    Raises
    ------
    TargetError
        If there is neither of the two, or the one there is does not compile it.
    """
    check_compiler()
    return nvrtc.compiled(text, arch).ptx if nvrtc.available() else _by_nvcc(text, arch)


def check_compiler() -> None:
    """Raise TargetError, with the way out, where there is neither NVRTC nor nvcc."""
    if not nvrtc.available() and shutil.which("nvcc") is None:
        raise TargetError(
            f"NVIDIA's compiler is needed, and there is none: {nvrtc.PACKAGES}, which needs no "
            "GPU, or put CUDA's nvcc on the PATH"
        )


def _by_nvcc(text: str, arch: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "kernels.cu", Path(folder) / "kernels.ptx"
        source.write_text(text)
        command = ["nvcc", "-ptx", "-O3", "-w", f"-arch={arch}", "-o", str(result), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            message = (done.stderr.strip() or "no message").splitlines()[0]
            raise TargetError(f"nvcc cannot compile for {arch}: {message}")
        return result.read_text()


def sass(text: str, arch: str) -> str:
    """NVIDIA's machine code as text: NVRTC's, by nvdisasm.

    Raises
    ------
    TargetError
        If one of the two is missing or does not know ``arch``, or NVRTC rejects the text.
    """
    if not nvrtc.available() or disassembler() is None:
        raise TargetError(
            f"SASS is made by NVRTC and nvdisasm, and one is missing: {nvrtc.PACKAGES}"
        )
    return _disassembled(nvrtc.compiled(text, arch).cubin, arch)


@functools.lru_cache(maxsize=32)
def _disassembled(cubin: bytes, arch: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        program, file = Path(folder) / "nvdisasm", Path(folder) / "kernels.cubin"
        file.write_bytes(cubin)
        found = disassembler()
        if not os.access(found, os.X_OK):  # as its package leaves it
            shutil.copyfile(found, program)
            program.chmod(0o755)
            found = str(program)
        done = subprocess.run(
            [found, "--print-code", str(file)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        message = (done.stderr.strip() or "no message").splitlines()[-1]
        raise TargetError(
            f"nvdisasm cannot read code for {arch}: {message}; that of CUDA 13 starts at sm_75, "
            "and lib.source('ptx') is there for all"
        )
    return done.stdout


@functools.cache
def disassembler() -> str | None:
    """Path of nvdisasm, of its package or of a toolkit; it may lack the right to be executed."""
    try:
        from cuda.pathfinder import find_nvidia_binary_utility
    except ImportError:
        return shutil.which("nvdisasm")
    return find_nvidia_binary_utility("nvdisasm") or shutil.which("nvdisasm")


def ptx_by_kernel(text: str) -> dict[str, str]:
    """Kernel -> its part of a PTX text."""
    return _parts(_ENTRY, text)


def sass_by_kernel(text: str) -> dict[str, str]:
    """Kernel -> its part of nvdisasm's text."""
    return _parts(_SECTION, text)


def _parts(head: re.Pattern, text: str) -> dict[str, str]:
    """Text from each match of ``head`` to the next, by the name that it captures."""
    found = list(head.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {match[1]: text[match.start() : end] for match, end in zip(found, ends, strict=True)}
