"""Which instructions the compiled kernels hold, for CPUs that need not be this one."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from relaxquant import target as targets
from relaxquant.errors import TargetError
from relaxquant.kernels import intrinsics
from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from tests.kernels.harness import build, conv_layer, implement

NAMES = {  # CPU: instruction set
    "generic": "generic",
    "znver3": "avx2",
    "haswell": "avx2",
    "alderlake": "avx2_vnni",
    "skylake-avx512": "avx512",
    "cascadelake": "avx512_vnni",
    "znver4": "avx512_vbmi",
    "icelake-server": "avx512_vbmi",
}
# CPU, largest weight, AVX dot products in the code, and whether vectors are 512 bits wide. (For the
# baseline LLVM finds SSE2's pmaddwd by itself: as exact as the int32 products it stands for.)
CODE = [
    ("znver3", 64, {"vpmaddubsw", "vpmaddwd"}, False),
    ("znver3", 127, {"vpmaddwd"}, False),
    ("skylake-avx512", 64, {"vpmaddubsw", "vpmaddwd"}, True),
    ("skylake-avx512", 127, {"vpmaddwd"}, True),
    ("cascadelake", 64, {"vpdpbusd"}, True),
    ("cascadelake", 127, {"vpdpbusd"}, True),
    ("znver4", 127, {"vpdpbusd"}, True),
    ("alderlake", 127, {"vpdpbusd"}, False),
    ("generic", 64, set(), False),
    ("generic", 127, set(), False),
]


def resolve(cpu: str):
    """The target of a CPU, or a skip on machines of another architecture."""
    try:
        return targets.resolve(cpu)
    except TargetError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("cpu", NAMES)
def test_instruction_set_of_a_cpu(cpu):
    assert intrinsics.instruction_set(resolve(cpu)).name == NAMES[cpu]


@pytest.mark.parametrize("cpu, weight_max, wanted, wide", CODE)
def test_dot_products_in_the_code(cpu, weight_max, wanted, wide):
    target = resolve(cpu)
    layer = conv_layer(channels=32, out_channels=32, padding=(1, 1, 1, 1), weight_max=weight_max)
    implementation = implement(layer, intrinsics.instruction_set(target), spatial_pack)
    code = build(implementation.build(), target).inspect_source("asm")
    assert set(re.findall(r"\bvp(?:maddubsw|maddwd|dpbusd)\b", code)) == wanted
    assert ("%zmm" in code) == wide
    if wanted:
        assert set(re.findall(r"vp\w+", implementation.instructions)) == wanted


@pytest.mark.parametrize("cpu", ["znver3", "skylake-avx512"])
@pytest.mark.parametrize("weight_max, chain", [(64, 1), (32, 2), (16, 4)])
def test_a_chain_widens_once(weight_max, chain, cpu):
    """As many ``vpmaddubsw`` as the chain is long for each ``vpmaddwd``."""
    target = resolve(cpu)
    layer = conv_layer(channels=32, out_channels=32, padding=(1, 1, 1, 1), weight_max=weight_max)
    weights = replace(layer.weights, weight=np.full_like(layer.weights.weight, weight_max))
    implementation = implement(
        replace(layer, weights=weights), intrinsics.instruction_set(target), spatial_pack
    )
    code = build(implementation.build(), target).inspect_source("asm")
    counts = {name: len(re.findall(rf"\b{name}\b", code)) for name in ("vpmaddubsw", "vpmaddwd")}
    assert counts["vpmaddubsw"] == chain * counts["vpmaddwd"] > 0


@pytest.mark.parametrize("cpu, rounding", [("znver3", "vcvtps2dq"), ("znver4", "vcvtps2dq")])
def test_epilogue_rounds_by_one_instruction(cpu, rounding):
    target = resolve(cpu)
    layer = conv_layer(channels=32, out_channels=32)
    implementation = implement(layer, intrinsics.instruction_set(target), spatial_pack)
    code = build(implementation.build(), target).inspect_source("asm")
    assert rounding in code and "nearbyint" not in code
