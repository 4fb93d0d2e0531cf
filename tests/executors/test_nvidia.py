"""Whole networks through NVIDIA's compiler and disassembler, which need no GPU."""

from __future__ import annotations

import re

import pytest
import tvm_ffi

import relaxquant as rq
from relaxquant.executors import nvidia, nvrtc
from relaxquant.executors.launches import kernel_of
from relaxquant.executors.resources import Resources, occupancy, resources_of
from relaxquant.kernels.cuda.generate import AFTERWARDS
from tests.networks import make

needs_nvrtc = pytest.mark.skipif(
    not nvrtc.available(), reason=f"NVRTC is not installed: {nvrtc.PACKAGES}"
)
needs_nvdisasm = pytest.mark.skipif(
    nvidia.disassembler() is None, reason=f"nvdisasm is not installed: {nvrtc.PACKAGES}"
)
WORDS = {"dp4a": re.compile(r"\bdp4a\."), "mma": re.compile(r"\bmma\.sync\.")}
LOG = """\
ptxas info    : Compiling entry function 'one_kernel' for 'sm_80'
ptxas info    : Function properties for one_kernel
ptxas         .     24 bytes stack frame, 16 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 24 bytes cumulative stack size, 2048 bytes smem
ptxas info    : Compiling entry function 'two_kernel' for 'sm_80'
ptxas info    : Function properties for two_kernel
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 376 bytes cmem[0]
"""


@pytest.fixture(scope="module")
def modules():
    """Networks, quantized but for one."""
    found = {}
    for name in ("residual", "inverted_residual", "flatten_dense", "branches"):
        network, x = make(name)
        found[name] = rq.frontends.from_torch(network, x)
    config = rq.QConfig.best(calibrate_mode="global_scale")
    return {name: rq.quantize(module, config) for name, module in found.items()} | {
        "fp32": found["residual"]
    }


@needs_nvrtc
@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("residual", "sm_61"),
        ("residual", "sm_75"),
        ("residual", "sm_90"),
        ("inverted_residual", "sm_80"),
        ("flatten_dense", "sm_86"),
        ("branches", "sm_100"),
        ("fp32", "sm_80"),
    ],
)
def test_every_layer_multiplies_by_the_instruction_it_names(modules, name, arch):
    library = rq.compile(modules[name], target=arch)
    kernels = nvidia.ptx_by_kernel(library.source("ptx"))
    assert kernels.keys() == library.launches.keys() == library.resources.keys()
    layers = [record for record in library.kernels if record.macs]
    assert layers
    for record in layers:
        ptx = kernels[kernel_of(record.name)]
        found = {word for word, pattern in WORDS.items() if pattern.search(ptx)}
        named = {word for word in WORDS if record.instructions.startswith(word)}
        # Of bytes multiplied one by one NVIDIA's compiler may make a dp4a of its own.
        assert found == named or (record.precision, found) == ("int8", {"dp4a"}), record
        assert named <= found
    assert all((each.spilled, each.local) == (0, 0) for each in library.resources.values())
    assert all(0 < share <= 1 for share in library.occupancy.values())


@needs_nvrtc
@needs_nvdisasm
def test_machine_code_of_a_network_is_read_where_it_can_be(modules):
    library = rq.compile(modules["residual"], target="sm_80")
    parts = nvidia.sass_by_kernel(library.source("sass"))
    assert parts.keys() == library.launches.keys()
    for record in library.kernels:
        words = {"dp4a": "IDP.4A", "mma": "IMMA"}
        found = {word for word, name in words.items() if name in parts[kernel_of(record.name)]}
        assert found == ({record.instructions.split(".")[0]} if record.macs else set())
    with pytest.raises(rq.TargetError, match=r"nvdisasm cannot read.*sm_61.*source\('ptx'\)"):
        rq.compile(modules["residual"], target="sm_61").source("sass")


@needs_nvrtc
def test_stock_tvms_kernels_compile_too(modules):
    library = rq.compile(modules["residual"], target="sm_80", executor="naive")
    kernels = nvidia.ptx_by_kernel(library.source("ptx"))
    assert kernels.keys() == library.launches.keys() == library.resources.keys()
    assert not any(word.search(ptx) for ptx in kernels.values() for word in WORDS.values())


@needs_nvrtc
def test_a_text_is_compiled_once(modules):
    text = rq.compile(modules["flatten_dense"], target="sm_80").source("cuda")
    first = nvrtc.compiled(text, "sm_80")
    assert nvrtc.compiled(str(text), "sm_80") is first


def test_a_hook_of_the_users_is_called_and_stays(modules):
    assert tvm_ffi.get_global_func(AFTERWARDS, allow_missing=True) is None
    tvm_ffi.register_global_func(AFTERWARDS, lambda text, _target: f"// seen\n{text}")
    try:
        library = rq.compile(modules["flatten_dense"], target="sm_80")
        assert library.source("cuda").startswith("// seen")
        assert tvm_ffi.get_global_func(AFTERWARDS)("", None) == "// seen\n"
    finally:
        tvm_ffi.registry.remove_global_func(AFTERWARDS)
    rq.compile(modules["flatten_dense"], target="sm_80")
    assert tvm_ffi.get_global_func(AFTERWARDS, allow_missing=True) is None


def test_without_a_compiler_both_ways_out_are_named(modules, monkeypatch):
    library = rq.compile(modules["flatten_dense"], target="sm_80")
    monkeypatch.setattr(nvrtc, "available", lambda: False)
    monkeypatch.setattr(nvidia.shutil, "which", lambda _name: None)
    with pytest.raises(rq.TargetError, match=r"requirements-cuda\.txt.*nvcc on the PATH"):
        library.source("ptx")
    with pytest.raises(rq.TargetError, match=r"NVRTC and nvdisasm.*requirements-cuda\.txt"):
        library.source("sass")


def test_the_assemblers_log_is_read():
    found = resources_of(LOG)
    assert found == {
        "one_kernel": Resources(registers=40, local=24, spilled=16, shared=2048),
        "two_kernel": Resources(registers=255, local=0, spilled=0, shared=0),
    }
    with pytest.raises(rq.TargetError, match="does not say what one_kernel takes"):
        resources_of(LOG.splitlines()[0])


@pytest.mark.parametrize(
    ("taken", "threads", "arch", "expected"),
    [
        # By hand: 40 registers x 32 are 5 steps of 256, 12 warps of a quarter of 65536.
        (Resources(40, 0, 0, 0), 128, "sm_80", 48 / 64),
        (Resources(40, 0, 0, 0), 128, "sm_86", 1.0),
        (Resources(255, 0, 0, 0), 256, "sm_80", 8 / 64),  # two warps a quarter: one block
        (Resources(255, 0, 0, 0), 1024, "sm_80", 0.0),  # cannot be launched
        (Resources(32, 0, 0, 0), 32, "sm_80", 32 / 64),  # 32 blocks at most
        (Resources(32, 0, 0, 48 << 10), 128, "sm_80", 12 / 64),  # three blocks of 49 KiB in 164
        (Resources(32, 0, 0, 48 << 10), 128, "sm_61", 8 / 64),  # two of 48 KiB in 96
        (Resources(32, 0, 0, 0), 96, "sm_75", 30 / 32),  # ten blocks of three warps
        (Resources(32, 0, 0, 0), 96, "sm_110", None),
    ],
)
def test_occupancy(taken, threads, arch, expected):
    assert occupancy(taken, threads, arch) == expected
