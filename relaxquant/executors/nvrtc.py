"""NVIDIA's runtime compiler: PTX and machine code of CUDA text, with neither a GPU nor a driver.

The library NVRTC, the headers that its programs include, and Python's way to call it come as
packages: ``env/requirements-cuda.txt``.

Settings are those with which TVM compiles for a GPU, ``tvm/support/nvcc.py``, but for two that
`cuda.exact_compiler` changes there too. There is no fast mathematics: division, square roots and
numbers near zero are IEEE's. And the assembler assigns registers by its default rules: by TVM's,
``--register-usage-level=10``, one kernel of the tests was seen to spill (sm_90, CUDA 12.9). That is
no cure: by the default a few kernels of whole networks spill some bytes, as `CudaLibrary.resources`
tells, and which is faster was not measured. ``fma`` may take the place of a product and a sum, by
NVIDIA's default and TVM's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import ModuleType

from ..errors import TargetError

PACKAGES = "pip install -r env/requirements-cuda.txt"
OPTIONS = (
    "-default-device",
    "--device-int128",
    "-DINFINITY=__int_as_float(0x7f800000)",  # TVM's text takes it from the host's <math.h>
    "-w",
    "--ptxas-options=-v",  # what a kernel takes, for `resources`
)
HEADERS = ("cudart", "cccl")  # names of NVIDIA's, for cuda.pathfinder
HOST_HEADER = "#include <cuda.h>"


@dataclass(frozen=True)
class MachineCode:
    """What NVRTC made of a text for one compute capability.

    Attributes
    ----------
    ptx : str
    cubin : bytes
        ELF with the machine code.
    log : str
        What the assembler says of each kernel.
    """

    ptx: str
    cubin: bytes
    log: str


def available() -> bool:
    """Whether NVRTC and its headers are installed."""
    return _bindings() is not None and bool(_include_options())


@functools.lru_cache(maxsize=32)
def compiled(text: str, arch: str) -> MachineCode:
    """PTX and machine code of CUDA text; each text is compiled once.

    Parameters
    ----------
    text : str
        CUDA C++ as TVM generates it.
    arch : str
        ``"sm_80"`` and the like.

    Raises
    ------
    TargetError
        If NVRTC is not installed, is of a CUDA that does not know ``arch``, or rejects the text;
        the message has its first complaint.
    """
    if not available():
        raise TargetError(f"NVRTC is not installed: {PACKAGES}")
    nvrtc = _bindings()
    _check_arch(nvrtc, arch)
    # Host code, which NVRTC does not compile.
    lines = [line for line in text.splitlines() if line.strip() != HOST_HEADER]
    program = _got(
        nvrtc.nvrtcCreateProgram("\n".join(lines).encode(), b"kernels.cu", 0, None, None)
    )
    try:
        options = [f"--gpu-architecture={arch}", *_include_options(), *OPTIONS]
        encoded = [option.encode() for option in options]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
        log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        log = log.rstrip(b"\0").decode(errors="replace")
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise TargetError(f"NVRTC {version()} cannot compile for {arch}: {_complaint(log)}")
        ptx = _read(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
        cubin = _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return MachineCode(ptx.rstrip(b"\0").decode(), cubin, log)


def version() -> str:
    """NVRTC's version, such as ``"12.9"``."""
    nvrtc = _bindings()
    if nvrtc is None:
        raise TargetError(f"NVRTC is not installed: {PACKAGES}")
    _, major, minor = nvrtc.nvrtcVersion()
    return f"{major}.{minor}"


@functools.cache
def _bindings() -> ModuleType | None:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError):  # the latter where the library itself is not found
        return None
    return nvrtc


@functools.cache
def _include_options() -> tuple[str, ...]:
    """Where the headers are; empty where one part of them is missing."""
    try:
        from cuda.pathfinder import find_nvidia_header_directory
    except ImportError:
        return ()
    folders = [find_nvidia_header_directory(name) for name in HEADERS]
    return tuple(f"-I{folder}" for folder in folders) if all(folders) else ()


def _check_arch(nvrtc: ModuleType, arch: str) -> None:
    known = {f"sm_{number}" for number in _got(_counted(nvrtc))}
    if arch not in known:
        lowest, highest = (choose(known, key=_number) for choose in (min, max))
        raise TargetError(
            f"NVRTC {version()} does not know {arch}, but {lowest} to {highest}: install one of a "
            f"CUDA that does ({PACKAGES} is for sm_50 to sm_121)"
        )


def _counted(nvrtc: ModuleType) -> tuple:
    """Status and supported architectures."""
    _, count = nvrtc.nvrtcGetNumSupportedArchs()
    status, numbers = nvrtc.nvrtcGetSupportedArchs()
    return status, numbers[:count]


def _number(arch: str) -> int:
    return int(arch.removeprefix("sm_"))


def _got(result: tuple):
    """The value of a call that returns its status first."""
    status, value = result
    if int(status):
        raise TargetError(f"NVRTC failed: {status}")
    return value


def _read(size, fill, program) -> bytes:
    """What ``fill`` writes into a buffer as large as ``size`` says."""
    buffer = bytearray(_got(size(program)))
    (status,) = fill(program, buffer)
    if int(status):
        raise TargetError(f"NVRTC failed: {status}")
    return bytes(buffer)


def _complaint(log: str) -> str:
    lines = [line.strip() for line in log.splitlines()]
    return next((line for line in lines if "error" in line or "fatal" in line), "no message")
