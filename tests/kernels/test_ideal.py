"""Ideal speedups: MACs for each instruction, from the lanes and the dot product's cost."""

from __future__ import annotations

import pytest

from relaxquant.errors import InputError
from relaxquant.kernels import schedule_names
from relaxquant.kernels.ideal import RATES, ideal_speedup
from relaxquant.kernels.intrinsics import (
    AVX2,
    AVX512,
    AVX512_VNNI,
    GENERIC,
    INSTRUCTION_SETS,
    NEON,
)


def test_fp32_is_a_multiply_add_in_every_lane():
    for isa in INSTRUCTION_SETS:
        assert ideal_speedup("nchw_spatial_pack", isa, "fp32") == isa.lanes
        assert ideal_speedup("nhwc_spatial_pack", isa, "fp32") == isa.lanes


@pytest.mark.parametrize("schedule", ["nchw_spatial_pack", "nhwc_quantized_interleaved"])
def test_int8_is_four_macs_a_lane_over_the_instructions_of_a_dot_product(schedule):
    exact = {isa.name: ideal_speedup(schedule, isa, "int8", 127) for isa in INSTRUCTION_SETS}
    reduced = {isa.name: ideal_speedup(schedule, isa, "int8") for isa in INSTRUCTION_SETS}
    for isa in INSTRUCTION_SETS:
        assert exact[isa.name] == 4 * isa.lanes / isa.dots[-1].cost
    assert exact["avx512_vnni"] == reduced["avx512_vnni"] == 64
    assert reduced["avx2"] > exact["avx2"], "narrower weights, a faster dot product"


def test_simd_needs_two_instructions_unless_the_cpu_fuses_them():
    assert ideal_speedup("nchw_simd", AVX2, "int8") == AVX2.lanes / 2
    assert ideal_speedup("nchw_simd", AVX512, "int8") == AVX512.lanes / 2
    assert ideal_speedup("nchw_simd", AVX512_VNNI, "int8") == AVX512_VNNI.lanes
    assert ideal_speedup("nchw_simd", NEON, "int8") == NEON.lanes


def test_winograd_counts_the_multiplications_it_leaves_out():
    assert ideal_speedup("nchw_winograd", AVX2, "fp32") == 4 * 8
    assert ideal_speedup("nchw_winograd_int", AVX2, "int8") == 2.25 * 8
    assert ideal_speedup("nchw_winograd_int", AVX512_VNNI, "int8") == 2.25 * 2 * 16
    assert ideal_speedup("nchw_winograd_int8", AVX512_VNNI, "int8") == 2.25 * 4 * 16
    assert ideal_speedup("nchw_winograd_int8", AVX2, "int8") == 2.25 * 4 * 8 / 2.25
    with pytest.raises(InputError, match="no dot product on neon"):
        ideal_speedup("nchw_winograd_int", NEON, "int8")


def test_scalar_loops_are_the_unit():
    assert ideal_speedup("reference", GENERIC, "fp32") == 1


def test_every_schedule_of_the_study_has_one():
    assert set(RATES) <= set(schedule_names())
    assert {"nchw_spatial_pack", "nchw_simd", "nhwc_spatial_pack"} <= set(RATES)


def test_what_has_none_is_refused():
    with pytest.raises(InputError, match="'auto' has no ideal speedup"):
        ideal_speedup("auto", AVX2, "int8")
    with pytest.raises(InputError, match="'nchw_simd' is not for precision 'fp32'"):
        ideal_speedup("nchw_simd", AVX2, "fp32")
    with pytest.raises(InputError, match="did you mean 'nchw_simd'"):
        ideal_speedup("nchw_smid", AVX2, "int8")
