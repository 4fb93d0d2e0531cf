"""Networks of fewer than eight bits: packed weights from end to end, and what records tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import relaxquant as rq
from tests.networks import NETWORKS, Residual

DIRECT = "nchw_spatial_pack"


@pytest.fixture(scope="module")
def network():
    """A network whose weights outweigh its biases, and an input for it."""
    torch.manual_seed(0)
    x = torch.randn(2, *NETWORKS["residual"][1])
    return rq.frontends.from_torch(Residual(channels=64).eval(), x), x.numpy()


def quantized(network, nbit_weight: int, nbit_input: int = 8, **config):
    """The QDQ module."""
    module, x = network
    config = rq.QConfig.best(
        nbit_weight=nbit_weight, nbit_input=nbit_input, nbit_ends=None, **config
    )
    return rq.quantize(module, config, calibration=[x])


@pytest.fixture(scope="module")
def libraries(network):
    """Compiled by the direct schedule, by bits of the weights."""
    modules = {bits: quantized(network, bits) for bits in (1, 4, 8)}
    return {bits: rq.compile(module, schedule=DIRECT) for bits, module in modules.items()}


@pytest.mark.parametrize("nbit_weight, nbit_input", [(1, 8), (4, 4), (2, 2)])
def test_equal_to_the_reference_schedule(network, nbit_weight, nbit_input):
    qmodule = quantized(network, nbit_weight, nbit_input)
    expected = rq.compile(qmodule, schedule="reference", threads=1)(network[1])
    np.testing.assert_array_equal(rq.compile(qmodule, schedule=DIRECT)(network[1]), expected)


@pytest.mark.parametrize("schedule", ["nchw_lookup", "nchw_bit_serial", "auto"])
@pytest.mark.parametrize("nbit_weight, nbit_input", [(1, 4), (2, 1)])
def test_other_schedules_are_equal_and_store_bits(network, nbit_weight, nbit_input, schedule):
    qmodule = quantized(network, nbit_weight, nbit_input)
    library = rq.compile(qmodule, schedule=schedule)
    expected = rq.compile(qmodule, schedule="reference", threads=1)(network[1])
    np.testing.assert_array_equal(library(network[1]), expected)
    kernels = library.kernels.where(op="conv2d")
    whole = [record for record in kernels[1:] if "3x3" in record.shape]
    # Of the eight bits of a byte six at least are used, but for the last table of a pixel.
    assert all(r.weight_bytes <= 128 * 128 * 9 * nbit_weight / 5 for r in whole)


def test_few_bits_by_few_bits_are_left_to_winograd(network):
    qmodule = quantized(network, 4, 4)
    library = rq.compile(qmodule, schedule="nchw_winograd_int8")
    (record,) = library.kernels.where(op="conv2d", schedule="nchw_winograd_int8")
    assert (record.weight_bits, record.activation_bits) == (4, 4)
    assert record.weight_bytes == 128 * 128 * 9 // 2
    expected = rq.compile(qmodule, schedule="reference", threads=1)(network[1])
    np.testing.assert_array_equal(library(network[1]), expected)


def test_records_tell_bits_and_bytes(network):
    kernels = rq.compile(quantized(network, 4, 3), schedule=DIRECT).kernels
    inside = kernels.where(op="conv2d", schedule=DIRECT)
    assert {record.weight_bits for record in inside} == {4}
    assert {record.activation_bits for record in inside[1:]} == {3}
    by_shape = {record.shape.split(", ")[1]: record for record in inside[1:]}
    assert by_shape["3x3"].weight_bytes == 128 * 128 * 9 // 2
    (dense,) = kernels.where(op="dense")
    assert (dense.weight_bits, dense.weight_bytes) == (4, 128 * 16 // 2)
    assert all(r.weight_bits == r.weight_bytes == 0 for r in kernels.where(op="max_pool2d"))


def test_records_of_what_is_not_packed(network):
    module, _ = network
    fp32 = rq.compile(module).kernels.where(op="dense")[0]
    assert (fp32.weight_bits, fp32.activation_bits, fp32.weight_bytes) == (32, 32, 128 * 16 * 4)
    nhwc = rq.compile(quantized(network, 4), schedule="nhwc_quantized_interleaved").kernels
    wide = nhwc.where(op="conv2d", schedule="nhwc_quantized_interleaved")[-1]
    assert wide.weight_bits == 4 and wide.weight_bytes >= 64 * 128


def test_memory_falls_with_the_bits(libraries):
    assert libraries[4].memory.weight_bytes <= 0.55 * libraries[8].memory.weight_bytes
    assert libraries[1].memory.weight_bytes <= 0.2 * libraries[8].memory.weight_bytes


def test_the_file_shrinks_and_loads(libraries, network, tmp_path):
    files = {bits: libraries[bits].export(tmp_path / f"w{bits}.so") for bits in (4, 8)}
    saved = libraries[8].memory.weight_bytes - libraries[4].memory.weight_bytes
    assert files[8].stat().st_size - files[4].stat().st_size > 0.8 * saved
    loaded = rq.load(files[4])
    assert loaded.memory == libraries[4].memory
    assert [r.weight_bits for r in loaded.kernels] == [r.weight_bits for r in libraries[4].kernels]
    np.testing.assert_array_equal(loaded(network[1]), libraries[4](network[1]))


def test_a_library_from_the_cache_is_the_same(libraries, network, tmp_path, monkeypatch):
    monkeypatch.setenv("RELAXQUANT_CACHE", str(tmp_path))
    module = quantized(network, 4)
    for _ in range(2):
        library = rq.compile(module, schedule=DIRECT)
        assert library.memory == libraries[4].memory
        np.testing.assert_array_equal(library(network[1]), libraries[4](network[1]))
