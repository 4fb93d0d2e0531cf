"""What becomes of float16 when a network is lowered: run on the CPU by the plain loops.

Kernels for float16 are CUDA's, and `tests.executors.test_cuda` runs those; what is fused, cast and
left to TVM around them is the same here, where all of it runs.
"""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant import target as targets
from relaxquant.executors.pipelines import machine_pipeline, planning_pipeline
from relaxquant.executors.program import Program
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.lower.emit import Emitter
from relaxquant.lower.prepare import prepared
from tests.networks import NETWORKS, make


def lowered(module: tvm.IRModule):
    """As for CUDA, but with the plain loops that a CPU has for float16."""
    target = targets.resolve("native")
    reader, graph = prepared(module, "auto", half=True)
    return Emitter(graph, reader, instruction_set(target), "auto", None).emit()


def run(module: tvm.IRModule, x: np.ndarray) -> np.ndarray:
    """The output of a lowered module."""
    target = targets.resolve("native")
    with tvm.transform.PassContext(opt_level=3), target:
        ready = machine_pipeline()(planning_pipeline(plan_memory=False)(module))
    machine = relax.VirtualMachine(Program(ready, target).executable, tvm.cpu())
    return machine["main"](tvm.runtime.tensor(x)).numpy()


def network(x_shape: tuple, body) -> tvm.IRModule:
    """``main`` of one float32 input; ``body(emit, x)`` emits the rest and gives the output."""
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType(x_shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(body(builder.emit, x))
        builder.emit_func_output(output)
    return builder.get()


def constant(shape: tuple, dtype: str = "float16") -> relax.Expr:
    """Weights, the same in every run."""
    return relax.const(np.random.default_rng(0).normal(size=shape).astype(dtype) / 4)


def convolution(emit, x, channels: int = 8):
    """3x3 in float16 as `in_half` writes it, summed in float32 and cast."""
    weight = constant((channels, int(x.ty.shape[1]), 3, 3))
    sums = emit(R.nn.conv2d(x, weight, padding=1, out_dtype="float32"))
    return emit(R.astype(sums, "float16"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_what_it_is_in_fp32_but_for_rounding(name):
    """Weights and outputs of up to six layers are rounded to 11 bits: by 0.05 % each, at most."""
    model, x = make(name)
    fp32 = rq.frontends.from_torch(model, x)
    found = lowered(rq.frontends.in_half(fp32))
    expected, got = rq.compile(fp32)(x), run(found.module, x.numpy())
    assert 0 < np.abs(got - expected).max() < 0.005 * np.abs(expected).max()
    layers = [record for record in found.kernels if record.macs]
    assert {record.precision for record in layers} == {"fp16"}
    assert {record.weight_bits for record in layers} == {16}


def test_bias_residual_and_activation_are_fused_and_rounded_once():
    def body(emit, x):
        half = emit(R.astype(x, "float16"))
        bias = emit(R.add(convolution(emit, half, 16), constant((1, 16, 1, 1))))
        return emit(R.astype(emit(R.nn.relu(emit(R.add(bias, half)))), "float32"))

    found = lowered(network((1, 16, 4, 4), body))
    assert [record.op for record in found.kernels] == ["cast", "conv2d", "store"]
    x = np.random.default_rng(1).normal(size=(1, 16, 4, 4)).astype(np.float32)
    got = run(found.module, x)
    # Of float32 that no layer rounded in between, to the last bit but one of float16.
    exact = run(network((1, 16, 4, 4), lambda emit, x: _in_float32(emit, x)), x)
    np.testing.assert_allclose(got, exact, rtol=2.0**-11, atol=1e-6)
    np.testing.assert_array_equal(got, got.astype(np.float16))


def _in_float32(emit, x):
    """The same, its inputs rounded to float16 and nothing else."""
    half = emit(R.astype(emit(R.astype(x, "float16")), "float32"))
    weight, bias = (
        relax.const(constant(shape).value.numpy().astype(np.float32))
        for shape in ((16, 16, 3, 3), (1, 16, 1, 1))
    )
    sums = emit(R.add(emit(R.nn.conv2d(half, weight, padding=1)), bias))
    return emit(R.nn.relu(emit(R.add(sums, half))))


def test_tvms_operators_get_the_type_that_they_had():
    def body(emit, x):
        half = convolution(emit, emit(R.astype(x, "float16")))
        wide = emit(R.exp(emit(R.astype(half, "float32"))))
        narrow = emit(R.tanh(half))
        both = emit(R.concat([emit(R.astype(narrow, "float32")), wide], axis=1))
        return emit(R.log(emit(R.split(both, 2, axis=2))[0]))

    module = network((2, 3, 4, 6), body)
    found = lowered(module)
    assert found.module["main"].ret_ty.dtype == "float32"
    precisions = {r.op: r.precision for r in found.kernels if r.schedule == "tvm default"}
    assert (precisions["tanh"], precisions["log"]) == ("fp16", "fp32")
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 6)).astype(np.float32)
    with np.errstate(invalid="ignore"):
        expected = rq.compile(module, executor="naive")(x)
    np.testing.assert_allclose(run(found.module, x), expected, rtol=0.02, atol=0.02)


def test_a_flattened_map_that_is_cast_stays_what_it_is_for_others():
    def body(emit, x):
        half = convolution(emit, emit(R.astype(x, "float16")))
        pooled = emit(R.mean(emit(R.astype(half, "float32")), axis=[2, 3], keepdims=True))
        flat = emit(R.astype(emit(R.reshape(pooled, (2, 8))), "float16"))
        dense = emit(R.matmul(flat, constant((8, 8)), out_dtype="float32"))
        return emit(R.add(dense, emit(R.astype(emit(R.tanh(flat)), "float32"))))

    module = network((2, 3, 4, 6), body)
    found = lowered(module)
    assert "dense" in {record.op for record in found.kernels}
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 6)).astype(np.float32)
    expected = rq.compile(module, executor="naive")(x)
    np.testing.assert_allclose(run(found.module, x), expected, rtol=0.01, atol=0.01)


def test_float32_weights_on_float16_are_not_rounded_behind_the_networks_back():
    def body(emit, x):
        wide = emit(R.astype(convolution(emit, emit(R.astype(x, "float16"))), "float32"))
        return emit(R.nn.conv2d(wide, constant((4, 8, 1, 1), "float32")))

    found = lowered(network((1, 3, 4, 4), body))
    (left,) = (record for record in found.kernels if record.op == "nn.conv2d")
    assert "not float16, of data that is" in left.reason


def test_float16_may_be_returned():
    def body(emit, x):
        return emit(R.nn.relu(convolution(emit, emit(R.astype(x, "float16")))))

    module = network((1, 3, 4, 4), body)
    x = np.random.default_rng(1).normal(size=(1, 3, 4, 4)).astype(np.float32)
    got = run(lowered(module).module, x)
    assert got.dtype == np.float16
    expected = rq.compile(module, executor="naive")(x)
    np.testing.assert_allclose(got, expected, rtol=0.01, atol=0.01)


def test_where_there_are_no_kernels_for_it_float16_stays_with_tvm():
    model, x = make("residual")
    half = rq.frontends.in_half(rq.frontends.from_torch(model, x))
    library = rq.compile(half, executor="vm")
    layers = [r for r in library.kernels if r.op in ("nn.conv2d", "matmul")]
    assert len(layers) == 5
    assert {record.schedule for record in layers} == {"tvm default"}
    np.testing.assert_allclose(library(x), rq.compile(half, executor="naive")(x), atol=1e-3)
