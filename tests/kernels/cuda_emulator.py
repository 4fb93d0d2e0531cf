"""Run generated CUDA kernels on the CPU: their own text, compiled by g++ behind a small header.

What TVM writes for a GPU is C++ but for a few words, which ``cuda_emulator.h`` defines, and for the
assembly of tensor cores, each instruction of which becomes a call of a function there. So the
kernels' indices, guards, packing and registers are those that a GPU would use. What is not checked
is what only a GPU can show: that NVIDIA's compiler and its instructions do what they say.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.s_tir import SBlockRealize

from relaxquant.executors.cuda import exact_compiler
from relaxquant.executors.launches import kernel_of
from relaxquant.kernels.cuda.generate import generate

HEADER = Path(__file__).with_suffix(".h")
ASSEMBLY = re.compile(r'asm volatile\(((?:\s*"[^"]*")+)\s*:([^:]*):([^;]*)\);')
# Of each instruction that the header has: types of sums, operands and sums, and registers.
EIGHT_BIT, HALF = ["s32", "u8", "s8", "s32"], ["f32", "f16", "f16", "f32"]
SIXTEEN_ROWS = "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
INSTRUCTIONS = {
    "m16n8k32": (EIGHT_BIT, SIXTEEN_ROWS),
    "m16n8k16": (HALF, SIXTEEN_ROWS),
    "m8n8k16": (EIGHT_BIT, "{%0, %1}, {%2}, {%3}, {%0, %1};"),
}

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


def cuda_source(functions: dict[str, tirx.PrimFunc], target: tvm.target.Target) -> str:
    """CUDA text of PrimFuncs, as TVM generates it."""
    module = tvm.IRModule(
        {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    )
    (device,) = generate(module, target).imports
    return device.inspect_source("cuda")


def emulate(functions: dict[str, tirx.PrimFunc], target: tvm.target.Target) -> dict[str, Callable]:
    """Each function as a callable on NumPy arrays in the order of its arguments."""
    text = cuda_source(functions, target)
    # TVM's own header is for NVIDIA's compilers; the kernels start at the first helper or kernel.
    kernels = ASSEMBLY.sub(_instruction, text[text.index("#ifdef _WIN32") :])
    kernels = kernels.replace("__shared__ alignas(64)", "alignas(64) static")
    entries = [_entry(name, function, kernels) for name, function in functions.items()]
    flags = ["-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-w", "-shared", "-fPIC"]
    with tempfile.TemporaryDirectory() as folder:
        file, library = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        file.write_text("\n".join([HEADER.read_text(), kernels, *entries]))
        subprocess.run(["g++", *flags, "-o", str(library), str(file)], check=True)
        loaded = ctypes.CDLL(str(library))
    return {name: _callable(loaded[f"run_{name}"]) for name in functions}


def _instruction(match: re.Match) -> str:
    template = "".join(re.findall(r'"([^"]*)"', match[1]))
    head, registers = template.split(" ", 1)
    mnemonic, shape, *order, kinds = head.replace(".sync.aligned", "").split(".", 4)
    assert (mnemonic, order) == ("mma", ["row", "col"])
    assert (kinds.split("."), registers.strip()) == INSTRUCTIONS[shape]
    operands = re.findall(r'"\+?[rf]"\(([^)]*)\)', match[2] + match[3])
    return f"{shape}({', '.join(operands)});"


def _entry(name: str, function: tirx.PrimFunc, text: str) -> str:
    """C function that launches all kernels of a PrimFunc on an array of pointers."""
    positions = {f"{parameter.name}_ptr": i for i, parameter in enumerate(function.params)}
    lines = []
    for i, threads in enumerate(launches(function.body)):
        kernel = kernel_of(name, i)
        signature = re.search(rf"\b{kernel}\(([^)]*)\) {{", text)[1]
        arguments = []
        for parameter in signature.split(", "):
            kind, variable = parameter.replace("__restrict__", "").rsplit(maxsplit=1)
            arguments.append(f"({kind})p[{positions[variable]}]")
        sizes = (
            threads.get(f"{tag}.{axis}", 1) for tag in ("blockIdx", "threadIdx") for axis in "xy"
        )
        call = f"{kernel}({', '.join(arguments)});"
        lines.append(f"  launch({', '.join(map(str, sizes))}, [=] {{ {call} }});")
    return f'extern "C" void run_{name}(void** p) {{\n' + "\n".join(lines) + "\n}"


def launches(statement: tirx.Stmt) -> list[dict[str, int]]:
    """Extents of the threads of every launch of a PrimFunc's body, in order."""
    if isinstance(statement, tirx.SeqStmt):
        return [launch for part in statement.seq for launch in launches(part)]
    if isinstance(statement, SBlockRealize):  # the root of what was scheduled
        return launches(statement.block.body)
    threads = {}
    while isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.THREAD_BINDING:
        threads[statement.thread_binding.thread_tag] = int(statement.extent)
        statement = statement.body
    assert threads, f"nothing is launched for a {type(statement)}"
    return [threads]


def _callable(function) -> Callable:
    def call(*arrays: np.ndarray) -> None:
        assert all(array.flags.c_contiguous for array in arrays)
        function((ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays)))

    return call


def on_gpu(functions: dict[str, tirx.PrimFunc], target: tvm.target.Target) -> dict[str, Callable]:
    """As `emulate`, on this machine's GPU."""
    module = tvm.IRModule(
        {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    )
    with exact_compiler():
        library, device = generate(module, target), tvm.cuda(0)

    def callable_on_gpu(name: str) -> Callable:
        def call(*arrays: np.ndarray) -> None:
            tensors = [tvm.runtime.tensor(array, device=device) for array in arrays]
            library[name](*tensors)
            arrays[-1][...] = tensors[-1].numpy()

        return call

    return {name: callable_on_gpu(name) for name in functions}
