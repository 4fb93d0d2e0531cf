"""Whole networks in the layout and by the schedules that are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.lower import lower, simulate
from tests.lower.test_lowering import quantized
from tests.networks import make

NAMES = ["residual", "inverted_residual", "branches"]


@pytest.mark.parametrize(
    "name, schedule",
    [("residual", "nchw_simd"), *((name, "nhwc_quantized_interleaved") for name in NAMES)],
)
def test_every_schedule_gives_the_same_integers(name, schedule):
    """Layouts and schedules differ in speed and in nothing else: outputs are equal bit for bit."""
    network, x = make(name)
    _, qmodule = quantized(network, x)
    library = rq.compile(qmodule, schedule=schedule)
    np.testing.assert_array_equal(library(x), rq.compile(qmodule)(x))
    wanted = library.kernels.where(op="conv2d", schedule=schedule)
    assert len(wanted) >= 2 and {r.chosen for r in wanted} == {"asked for"}


@pytest.mark.parametrize("name", NAMES)
def test_fp32_in_nhwc_agrees_with_torch(name):
    network, x = make(name)
    library = rq.compile(rq.frontends.from_torch(network, x), schedule="nhwc_spatial_pack")
    expected = network(x).detach().numpy()
    np.testing.assert_allclose(library(x), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert library.kernels.where(op="conv2d", schedule="nhwc_spatial_pack")


def test_all_feature_maps_are_in_the_schedules_layout():
    network, x = make("residual")
    fp32, qmodule = quantized(network, x)
    target = rq.target.resolve("native")

    def kernels(module, schedule: str) -> list:
        return lower(module, target, schedule).kernels

    integer = kernels(qmodule, "nhwc_quantized_interleaved")
    assert [r.layout for r in integer] == ["NCHW"] + (len(integer) - 1) * ["NHWC"]
    assert [r.op for r in integer] == [r.op for r in kernels(qmodule, "auto")]
    layouts = [r.layout for r in kernels(fp32, "nhwc_spatial_pack")]
    assert layouts == ["NCHW"] + (len(layouts) - 1) * ["NHWC"], "the image is read as it comes"
    for schedule in ("auto", "nchw_spatial_pack", "nchw_simd"):
        assert "NHWC" not in {r.layout for r in kernels(qmodule, schedule)}


def test_a_symbolic_batch_in_nhwc():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x, dynamic_batch=True)
    library = rq.compile(module, schedule="nhwc_spatial_pack", executor="vm")
    for batch in (1, 2):
        expected = network(x[:batch]).detach().numpy()
        np.testing.assert_allclose(library(x[:batch]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_tvm_reads_the_callers_integers_transposed(dtype):
    """A cube, whose shape does not tell that its axes were left as they lie."""
    x = relax.Var("x", relax.TensorType((1, 6, 6, 6), dtype))
    bb = relax.BlockBuilder()
    with bb.function("main", [x]):
        with bb.dataflow():
            first = bb.emit(R.permute_dims(x, (0, 3, 1, 2)))
            y = bb.emit_output(R.astype(first, "float32"))
        bb.emit_func_output(y)
    data = np.arange(216).reshape(1, 6, 6, 6).astype(dtype)
    expected = data.transpose(0, 3, 1, 2).astype(np.float32)
    for module in (bb.get(), simulate(bb.get())):
        np.testing.assert_array_equal(rq.compile(module, cache=False)(data), expected)
