"""CUDA kernels as NVIDIA's compiler takes them: no GPU is needed, and nothing is run.

For every case of `test_cuda` and several compute capabilities: it compiles, its products are the
instructions that the schedule is for, in PTX and, where nvdisasm knows the capability, in machine
code, and no register is spilled.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from relaxquant import TargetError
from relaxquant import target as targets
from relaxquant.executors import nvidia, nvrtc
from relaxquant.executors.launches import kernel_of
from relaxquant.executors.resources import resources_of
from relaxquant.kernels.conv2d_reference import plain_loops
from relaxquant.kernels.cuda.conv2d_direct import depthwise, in_fp32
from relaxquant.kernels.cuda.conv2d_dp4a import by_dp4a
from relaxquant.kernels.cuda.conv2d_mma import by_mma
from relaxquant.kernels.cuda.conv2d_mma_half import by_half_mma
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.tile import Tile
from tests.kernels import test_cuda as cases
from tests.kernels import test_cuda_half as halves
from tests.kernels.cuda_emulator import cuda_source

pytestmark = pytest.mark.skipif(
    not nvrtc.available(), reason=f"NVRTC is not installed: {nvrtc.PACKAGES}"
)
needs_nvdisasm = pytest.mark.skipif(
    nvidia.disassembler() is None, reason=f"nvdisasm is not installed: {nvrtc.PACKAGES}"
)
ARCHS = ("sm_61", "sm_75", "sm_80", "sm_86", "sm_90", "sm_120")
TFLITE = {name: options | dict(requantize="tflite") for name, options in cases.TFLITE.items()}
FLOATS = dict(dtype="float32", out_dtype="float32")
SEVERAL_TILES = {
    "several tiles": dict(
        size=(9, 11), out_channels=64, channels=32, padding=(1, 1, 1, 1), zero_point=3
    )
}
# What test_cuda runs in the emulator, by the instruction that multiplies.
DP4A = cases.LAYERS | cases.DP4A_ONLY | TFLITE
PLAIN = {
    "groups straddle blocks": dict(channels=20, out_channels=16, groups=2, zero_point=7),
    "int16": dict(dtype="int16", out_dtype="int16", padding=(1, 1, 1, 1)),
    "weights with zero points": dict(weight_zero_points="each", zero_point=3),
}
U8S8 = {
    "dp4a": re.compile(r"\bdp4a\.u32\.s32\b"),
    "mma": re.compile(r"\bmma\.sync\.aligned\.m\w+\.row\.col\.s32\.u8\.s8\.s32\b"),
}
IN_SASS = {"dp4a": re.compile(r"\bIDP\.4A\.U8\.S8\b"), "mma": re.compile(r"\bIMMA\.\w+\.U8\.S8\b")}


def text_of(layers: dict, rule, arch: str, tile: Tile | None = None) -> str:
    """CUDA text of all layers together."""
    target = targets.resolve(arch)
    functions, _ = cases.functions_and_calls(layers, rule, instruction_set(target), tile)
    return cuda_source(functions, target)


def compiled(layers: dict, rule, arch: str, tile: Tile | None = None) -> dict[str, str]:
    """PTX by kernel of layers that NVIDIA's compiler takes, none of which spills."""
    text = text_of(layers, rule, arch, tile)
    taken = resources_of(nvrtc.compiled(text, arch).log)
    assert {kernel_of(f"layer{i}") for i in range(len(layers))} == taken.keys()
    for (name, _), kernel in zip(layers.items(), map(kernel_of, _names(layers)), strict=True):
        assert taken[kernel].registers > 0
        assert (taken[kernel].spilled, taken[kernel].local) == (0, 0), f"{name}: {taken[kernel]}"
    result = nvidia.ptx(text, arch)
    assert f".target {arch}" in result
    return nvidia.ptx_by_kernel(result)


def _names(layers: dict) -> list[str]:
    return [f"layer{index}" for index in range(len(layers))]


@pytest.mark.parametrize("arch", ARCHS)
def test_dp4a(arch):
    for kernel, ptx in compiled(DP4A, cases.dp4a_rule, arch).items():
        assert U8S8["dp4a"].search(ptx) and "mma" not in ptx, kernel


@pytest.mark.parametrize("arch", ARCHS[1:])
def test_mma(arch):
    for kernel, ptx in compiled(cases.LAYERS, by_mma, arch).items():
        assert U8S8["mma"].search(ptx) and "dp4a" not in ptx, kernel


@pytest.mark.parametrize(
    ("rule", "arch", "word", "least"),
    [(by_dp4a, "sm_61", "dp4a", 4), (by_mma, "sm_75", "mma", 16), (by_mma, "sm_80", "mma", 4)],
)
def test_tiles_larger_than_small_layers_get(rule, arch, word, least):
    (ptx,) = compiled(SEVERAL_TILES, rule, arch, Tile(vectors=2, pixels=4)).values()
    assert len(U8S8[word].findall(ptx)) >= least


@pytest.mark.parametrize("arch", ["sm_61", "sm_90"])
@pytest.mark.parametrize("rule", [depthwise, plain_loops, in_fp32])
def test_what_multiplies_one_by_one(rule, arch):
    layers = {depthwise: cases.DEPTHWISE, plain_loops: PLAIN, in_fp32: cases.FP32}[rule]
    if rule is in_fp32:
        layers = {name: options | FLOATS for name, options in layers.items()}
    for ptx in compiled(layers, rule, arch).values():
        assert ("fma.rn.f32" in ptx) == (rule is in_fp32)
        assert not U8S8["mma"].search(ptx)
        # Of bytes multiplied one by one NVIDIA's compiler may make a dp4a of its own.
        assert rule is depthwise or not U8S8["dp4a"].search(ptx)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_mma_of_half_precision(arch):
    word = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
    layers = halves.in_half(cases.LAYERS | halves.EPILOGUES)
    assert all(word in ptx for ptx in compiled(layers, by_half_mma, arch).values())


@pytest.mark.parametrize("arch", ["sm_61", "sm_90"])
@pytest.mark.parametrize("rule", [in_fp32, depthwise, plain_loops])
def test_half_precision_elsewhere_is_multiplied_in_fp32(rule, arch):
    direct = cases.FP32 | halves.EPILOGUES | halves.IMAGES
    layers = {in_fp32: direct, depthwise: cases.DEPTHWISE, plain_loops: halves.ODD_GROUPS}[rule]
    for ptx in compiled(halves.in_half(layers), rule, arch).values():
        assert "fma.rn.f32" in ptx and "mma" not in ptx and "fma.rn.f16" not in ptx


@needs_nvdisasm
@pytest.mark.parametrize(
    ("rule", "arch", "word"),
    [(by_dp4a, "sm_75", "dp4a"), (by_mma, "sm_75", "mma"), (by_mma, "sm_90", "mma")],
)
def test_machine_code_has_the_instructions(rule, arch, word):
    text = text_of(cases.LAYERS, rule, arch)
    other = "mma" if word == "dp4a" else "dp4a"
    parts = nvidia.sass_by_kernel(nvidia.sass(text, arch))
    assert parts.keys() == {kernel_of(name) for name in _names(cases.LAYERS)}
    for kernel, sass in parts.items():
        assert IN_SASS[word].search(sass) and not IN_SASS[other].search(sass), kernel


@needs_nvdisasm
def test_the_log_has_the_registers_of_the_machine_code():
    text = text_of(cases.LAYERS, by_mma, "sm_80")
    parts = nvidia.sass_by_kernel(nvidia.sass(text, "sm_80"))
    taken = resources_of(nvrtc.compiled(text, "sm_80").log)
    for kernel, sass in parts.items():
        (registers,) = re.findall(r"SHI_REGISTERS=(\d+)", sass)
        assert taken[kernel].registers == int(registers)


@needs_nvdisasm
@pytest.mark.parametrize(("rule", "arch"), [(cases.dp4a_rule, "sm_75"), (by_mma, "sm_80")])
def test_no_product_and_sum_of_integer_kernels_become_one_fma(rule, arch, monkeypatch):
    """The compiler may contract floats, and the CPU's kernels do not round so."""
    text = text_of(cases.LAYERS | (TFLITE if rule is cases.dp4a_rule else {}), rule, arch)
    free = fused(nvidia.sass(text, arch))
    assert free.total(), "some layers ask for one fma by name"
    monkeypatch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "--fmad=false"))
    monkeypatch.setattr(nvrtc, "compiled", nvrtc.compiled.__wrapped__)
    assert fused(nvidia.sass(text, arch)) == free


def fused(sass: str) -> Counter:
    """How many floats each kernel multiplies and adds in one."""
    return Counter({k: part.count(" FFMA") for k, part in nvidia.sass_by_kernel(sass).items()})


def test_what_the_compiler_rejects_is_told_with_its_words():
    with pytest.raises(TargetError, match=r"NVRTC \d+\.\d+ cannot compile for sm_80: .*nothing"):
        nvrtc.compiled("int x = nothing;", "sm_80")
    with pytest.raises(TargetError, match="does not know sm_20, but sm_50 to"):
        nvrtc.compiled("", "sm_20")
