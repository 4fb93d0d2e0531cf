"""What notebook 11 counts in the kernels of a network, and what it computes from that."""

from __future__ import annotations

import pytest

import relaxquant as rq
from tests.networks import make
from workbook import cuda_evidence, cuda_roofline
from workbook.cuda_variants import DP4A, FP16, MMA, NAIVE, STOCK_FP32

TARGET = "sm_80"


@pytest.fixture(scope="module")
def modules():
    network, x = make("residual")
    fp32 = rq.frontends.from_torch(network, x)
    return fp32, rq.quantize(fp32, rq.QConfig.best(calibrate_mode="global_scale"))


@pytest.fixture(scope="module")
def libraries(modules):
    fp32, int8 = modules
    return {
        STOCK_FP32: rq.compile(fp32, TARGET, executor="naive"),
        NAIVE: rq.compile(int8, TARGET, executor="naive"),
        MMA: rq.compile(int8, TARGET),
    }


@pytest.fixture(scope="module")
def layer():
    return {line["compiled"]: line for line in _layer_lines()}


def _layer_lines():
    return cuda_evidence.layer_lines(cuda_evidence.layer_libraries(TARGET))


def test_naive_int8_multiplies_floats_and_converts_more(libraries):
    found = {line["compiled"]: line for line in cuda_evidence.network_lines(libraries)}
    stock, naive, ours = (found[name] for name in (STOCK_FP32, NAIVE, MMA))
    assert (naive["of integers (%)"], naive["with dp4a"], naive["with mma"]) == (0, 0, 0)
    assert naive["10⁹ multiply-adds"] == stock["10⁹ multiply-adds"]
    assert naive["conversions a multiply-add"] > stock["conversions a multiply-add"] == 0
    assert (ours["of integers (%)"], ours["with dp4a"] + ours["with mma"]) == (100, 5)


def test_kernels_come_hottest_first_with_their_launch(libraries):
    lines = cuda_evidence.kernel_lines(libraries[NAIVE])
    assert len(lines) == len(libraries[NAIVE].launches)
    assert sum(bool(line["multiply-adds"]) for line in lines) == 5
    assert all(line["multiply-adds"] == line["float multiplications"] for line in lines[:3])
    assert not any(line["dp4a"] or line["mma"] for line in lines)
    blocks, threads = map(int, lines[0]["blocks x threads"].split(" x "))
    assert blocks >= 1 and threads == 128


def test_stock_multiplies_integers_one_by_one_whatever_their_type(layer):
    column = "instructions that multiply, a multiply-add"
    for dtype in cuda_evidence.ACTIVATIONS:
        line = layer[f"stock TVM, integers, {dtype}"]
        assert (line["multiplied as"], line[column]) == (dtype, 1)
    assert layer[NAIVE]["multiplied as"] == "float32"
    assert layer[DP4A][column] == 1 / 4
    assert layer[MMA][column] == 1 / 128
    assert (layer[FP16]["multiplied as"], layer[FP16][column]) == ("float16", 1 / 64)
    assert "the same number of instructions" in cuda_evidence.layer_words(list(layer.values()))


def test_a_limit_binds_every_layer_on_tensor_cores(libraries, modules):
    found = {
        (gpu, 2): cuda_roofline.bounds(libraries[MMA], modules[1], 2, gpu)
        for gpu in ("H100 SXM", "H200")
    }
    layers = found["H100 SXM", 2]
    assert len(layers) == len(libraries[MMA].kernels.where(schedule="cuda_mma"))
    assert all(value > 0 for each in layers for value in each.seconds.values())
    first, second = cuda_roofline.lines(found)
    assert first["least (us)"] >= first["int8 tensor cores (us)"]
    assert second["memory (us)"] < first["memory (us)"]  # the H200's is faster


def test_larger_tiles_ask_for_fewer_bytes():
    lines = cuda_roofline.tile_lines("H100 SXM")
    asked = [line["bytes a multiply-add"] for line in lines]
    assert asked == sorted(asked, reverse=True)
    assert asked[1] == (32 + 64) / (32 * 64)
