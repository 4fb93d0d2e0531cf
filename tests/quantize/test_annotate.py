"""Which tensors are quantized, rule by rule, on the smallest network that shows it."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op as R

from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.annotate import annotate as annotate_clean
from relaxquant.quantize.graph import prepare


def annotate(mod, **settings):
    return annotate_clean(prepare(mod), QConfig.best(**({"asymmetric": False} | settings)))


def tensors(annotation):
    """{name: dtype} of the quantized tensors."""
    return {t.name: t.dtype for t in annotation.tensors.values()}


def reasons(annotation):
    return {kept.name: kept.reason for kept in annotation.kept_float}


def test_a_chain_is_quantized_at_its_end_only(net):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "r1")
        return layers.relu(layers.conv(y, "c2"), "out")

    found = annotate(net(body))
    assert tensors(found) == {"x": "int8", "r1": "uint8"}
    assert len(found.layers) == 2 and not found.kept_float


def test_an_intermediate_that_is_read_twice_ends_the_chain(net):
    def body(layers, x):
        y = layers.conv(x, "c1")
        z = layers.relu(y, "r1")
        return layers.add(layers.conv(y, "c2"), layers.conv(z, "c3"), "out")

    # r1 stands alone: an 8-bit operator with its own scale. c3 takes the addition, c2 does not.
    assert tensors(annotate(net(body))) == {
        "x": "int8",
        "c1_bias": "int8",
        "r1": "uint8",
        "c2_bias": "int8",
    }


def test_relu6_and_signed_clip(net):
    def body(layers, x):
        y = layers.emit(R.clip(layers.conv(x, "c1"), 0, 6), "six")
        z = layers.emit(R.clip(layers.conv(y, "c2"), -1, 1), "hard")
        return layers.conv(z, "c3")

    assert tensors(annotate(net(body))) == {"x": "int8", "six": "uint8", "hard": "int8"}


def residual(layers, x, order=("c1", "c2")):
    """Two convolutions of x added, as a residual block with downsampling does."""
    parts = {name: layers.conv(x, name) for name in order}
    y = layers.relu(layers.add(parts["c1"], parts["c2"], "add"), "relu")
    return layers.conv(y, "last")


@pytest.mark.parametrize("order", [("c1", "c2"), ("c2", "c1")])
def test_of_two_convolutions_the_later_takes_the_addition(net, order):
    found = annotate(net(lambda layers, x: residual(layers, x, order)))
    assert tensors(found) == {"x": "int8", f"{order[0]}_bias": "int8", "relu": "uint8"}
    chain = [chain for chain in found.layers.values() if chain.residual is not None]
    assert [found.graph.nodes[c.root].name for c in chain] == [order[1]]


def test_a_quantized_convolution_takes_the_addition_before_a_skipped_one(net):
    # c2 is later, but float: c1 takes the addition, and what c2 gives is quantized for it.
    found = annotate(net(residual), skip_conv_layers=(1,))
    assert tensors(found) == {"x": "int8", "c2_bias": "int8", "relu": "uint8"}


def test_identity_residual_reads_what_the_block_reads(net):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "r1")
        z = layers.relu(layers.conv(y, "c2"), "r2")
        z = layers.relu(layers.add(layers.conv(z, "c3"), y, "add"), "r3")
        return layers.conv(z, "c4")

    assert tensors(annotate(net(body))) == {
        "x": "int8",
        "r1": "uint8",
        "r2": "uint8",
        "r3": "uint8",
    }


def test_an_addition_without_a_convolution_is_an_8_bit_operator(net):
    def body(layers, x):
        y, z = (layers.relu(layers.conv(x, name), f"{name}_relu") for name in ("c1", "c2"))
        return layers.conv(layers.relu(layers.add(y, z, "add"), "r"), "last")

    # The activation is fused: one rounding, at r.
    assert tensors(annotate(net(body))) == {
        "x": "int8",
        "c1_relu": "uint8",
        "c2_relu": "uint8",
        "r": "uint8",
    }


def test_an_addition_that_leads_to_no_layer_asks_for_nothing(net):
    def body(layers, x):
        y, z = (layers.relu(layers.conv(x, name), f"{name}_relu") for name in ("c1", "c2"))
        return layers.relu(layers.add(y, z, "sum"), "r")

    found = annotate(net(body))
    assert tensors(found) == {"x": "int8"}
    assert reasons(found) == {"sum": "no quantized layer reads it"}


def test_a_tensor_added_to_itself_is_not_fused(net):
    def body(layers, x):
        y = layers.conv(x, "c1")
        return layers.conv(layers.add(y, y, "double"), "c2")

    assert tensors(annotate(net(body))) == {"x": "int8", "c1_bias": "int8", "double": "int8"}


def test_one_convolution_takes_one_addition(net):
    def body(layers, x):
        y = layers.add(layers.conv(x, "c1"), layers.conv(x, "c2"), "a")
        y = layers.add(y, layers.conv(x, "c3"), "b")
        return layers.conv(y, "c4")

    assert tensors(annotate(net(body))) == {
        "x": "int8",
        "c1_bias": "int8",
        "a": "int8",
        "b": "int8",
    }


def test_pooling_concat_and_head(net):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "r1")
        y = layers.emit(R.nn.max_pool2d(y, (2, 2), (2, 2)), "max")
        z = layers.conv(y, "c2")
        y = layers.emit(R.concat([y, z], axis=-3), "cat")
        y = layers.emit(R.nn.avg_pool2d(y, (2, 2), (2, 2)), "avg")
        return layers.head(y)

    found = annotate(net(body))
    assert tensors(found) == {
        "x": "int8",
        "r1": "uint8",
        "max": "uint8",
        "c2_bias": "int8",
        "cat": "int8",
        "avg": "int8",
        "mean": "int8",
        "flat": "int8",
    }
    shared = {t.name: found.tensors[t.shares].name for t in found.tensors.values()}
    assert {name for name, owner in shared.items() if name != owner} == {"max", "flat"}
    assert shared["max"] == "r1" and shared["flat"] == "mean"
    assert not found.kept_float


def test_parameters_are_shared_through_a_row_of_value_preserving_operators(net):
    def body(layers, x):
        y = layers.emit(R.nn.max_pool2d(x, (2, 2), (2, 2)), "p1")
        y = layers.emit(R.nn.max_pool2d(y, (2, 2), (2, 2)), "p2")
        return layers.dense(layers.emit(R.reshape(y, (2, 12)), "flat"), "fc")

    found = annotate(net(body))
    assert set(tensors(found)) == {"x", "p1", "p2", "flat"}
    assert {found.tensors[t.shares].name for t in found.tensors.values()} == {"x"}


def test_what_leads_to_no_quantized_layer_stays_float(net):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "r1")
        return layers.emit(R.nn.softmax(layers.head(y)), "soft")

    found = annotate(net(body), skip_dense_layer=True)
    assert tensors(found) == {"x": "int8"}
    assert reasons(found) == {
        "mean": "no quantized layer reads it",
        "flat": "no quantized layer reads it",
        "fc": "skip_dense_layer",
        "out": "nn.softmax has no 8-bit form",
    }
    assert set(tensors(annotate(net(body)))) == {"x", "r1", "mean", "flat"}


def test_skipped_convolution(net):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "r1")
        y = layers.relu(layers.conv(y, "c2"), "r2")
        return layers.conv(y, "c3")

    assert tensors(annotate(net(body), skip_conv_layers=(0,))) == {"r1": "uint8", "r2": "uint8"}
    found = annotate(net(body), skip_conv_layers=(1,))
    assert tensors(found) == {"x": "int8", "r2": "uint8"}
    assert reasons(found) == {"c2": "skip_conv_layers holds 1"}
    assert tensors(annotate(net(body), skip_conv_layers=(2, 0))) == {"r1": "uint8"}
    assert not annotate(net(body), skip_conv_layers=(0, 1, 2)).tensors


def test_skipping_a_convolution_that_is_not_there(net):
    mod = net(lambda layers, x: layers.conv(x, "c1"))
    with pytest.raises(QuantizeError, match="names convolution 1, but the network has 1, counted"):
        annotate(mod, skip_conv_layers=(0, 1))


def test_the_default_skips_nothing_where_there_is_no_convolution(net):
    mod = net(lambda layers, x: layers.dense(x, "fc"), shape=(2, 6))
    assert set(tensors(annotate(mod, skip_conv_layers=(0,)))) == {"x"}
    with pytest.raises(QuantizeError, match="names convolution 1, but the network has 0"):
        annotate(mod, skip_conv_layers=(1,))
    assert annotate(mod, skip_conv_layers=None).layers


def test_debug_enabled_ops(net):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "r1")
        y = layers.emit(R.nn.avg_pool2d(y, (2, 2), (2, 2)), "pool")
        y = layers.relu(layers.add(y, y, "sum"), "r2")
        return layers.head(layers.relu(layers.conv(y, "c2"), "r3"))

    everything = ["nn.conv2d", "nn.dense", "nn.avg_pool2d", "add", "mean", "reshape"]
    mod = net(body)
    all_ops = annotate(mod)
    assert tensors(annotate(mod, debug_enabled_ops=everything)) == tensors(all_ops)
    assert len(all_ops.layers) == 3
    found = annotate(mod, debug_enabled_ops=["nn.conv2d"])
    assert tensors(found) == {"x": "int8", "r2": "uint8"}
    assert reasons(found) == {
        "pool": "debug_enabled_ops does not hold nn.avg_pool2d",
        "sum": "debug_enabled_ops does not hold add",
        "mean": "debug_enabled_ops does not hold mean",
        "flat": "debug_enabled_ops does not hold reshape",
        "fc": "debug_enabled_ops does not hold matmul",
    }
    assert not annotate(mod, debug_enabled_ops=()).tensors
    assert len(annotate(mod, debug_enabled_ops=["matmul"]).layers) == 1
    with pytest.raises(QuantizeError, match=r"'conv2d', which .* mean 'nn\.conv2d'"):
        annotate(mod, debug_enabled_ops=["conv2d"])


def test_dense_layers_with_either_order_of_bias(net):
    def body(layers, x):
        y = layers.emit(R.reshape(x, (2, 192)), "flat")
        y = layers.relu(layers.dense(y, "f1", 16, flip=True), "r1")
        return layers.dense(y, "f2")

    found = annotate(net(body))
    assert tensors(found) == {"x": "int8", "flat": "int8", "r1": "uint8"}
    assert all(chain.bias is not None for chain in found.layers.values())


def test_float_operators_between_layers_give_their_reasons(net):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "r1")
        gate = layers.emit(R.sigmoid(layers.conv(y, "c2")), "gate")
        y = layers.emit(R.multiply(y, gate), "scaled")
        y = layers.emit(R.add(y, layers.const("k", 8, 8, 8)), "shifted")
        y = layers.emit(R.concat([y, y], axis=2), "tall")
        return layers.conv(layers.emit(R.mean(y, axis=[1], keepdims=True), "channels"), "c3")

    found = annotate(net(body))
    assert tensors(found) == {"x": "int8", "r1": "uint8", "channels": "int8"}
    assert reasons(found) == {
        "gate": "sigmoid has no 8-bit form",
        "scaled": "multiply has no 8-bit form",
        "shifted": "add of a constant has no 8-bit form",
        "tall": "concat has an 8-bit form on axis 1 only",
        "channels": "mean has an 8-bit form over H and W of NCHW only",
    }


def test_products_of_non_negative_values_are_unsigned(net):
    def body(layers, x):
        y = layers.relu(x, "r")
        gate = layers.emit(R.sigmoid(x), "gate")
        return layers.conv(layers.emit(R.multiply(y, gate), "product"), "c")

    assert tensors(annotate(net(body))) == {"product": "uint8"}


@pytest.mark.parametrize(("factor", "dtype"), [(2.0, "uint8"), (0.0, "uint8"), (-2.0, "int8")])
def test_the_sign_of_a_constant_factor_counts(net, factor, dtype):
    def body(layers, x):
        y = layers.relu(x, "r")
        product = R.multiply(y, relax.const(np.float32(factor)))
        return layers.conv(layers.emit(product, "product"), "c")

    assert tensors(annotate(net(body))) == {"product": dtype}


def test_broadcasting_addition_stays_float(net):
    def body(layers, x):
        y = layers.conv(x, "c1")
        pooled = layers.emit(R.mean(y, axis=[2, 3], keepdims=True), "mean")
        return layers.conv(layers.add(y, pooled, "sum"), "c2")

    found = annotate(net(body))
    assert tensors(found) == {"x": "int8", "sum": "int8"}
    assert reasons(found)["sum"] == "add of different shapes has no 8-bit form"


def test_computed_weights_and_other_layouts_stay_float(net):
    def body(layers, x):
        kernel = layers.emit(R.reshape(x, (8, 3, 4, 4)), "kernel")
        y = layers.emit(R.nn.conv2d(x, kernel, padding=1), "dynamic")
        y = layers.emit(R.permute_dims(y, [0, 2, 3, 1]), "nhwc")
        w = layers.const("w", 1, 1, 8, 4)
        y = R.nn.conv2d(y, w, data_layout="NHWC", kernel_layout="HWIO")
        return layers.emit(y, "other")

    found = reasons(annotate(net(body)))
    assert found["dynamic"] == "its weights are not a constant"
    assert found["out"] == "its layouts are NHWC and HWIO, not NCHW and OIHW"


def test_split_feeds_concat_in_float(net):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "r1")
        halves = layers.emit(R.split(y, 2, axis=1), "halves")
        y = layers.emit(R.concat([halves[1], halves[0]], axis=1), "cat")
        whole = layers.emit(R.concat(halves, axis=1), "whole")
        return layers.conv(layers.add(y, whole, "sum"), "c2")

    found = annotate(net(body))
    assert reasons(found)["whole"] == "concat of anything but float32 tensors has no 8-bit form"
    assert {"cat", "whole", "sum"} < set(tensors(found))


def test_symbolic_batch(net):
    def body(layers, x):
        return layers.head(residual(layers, x))

    found = annotate(net(body, shape=("n", 3, 8, 8)))
    assert set(tensors(found)) == {"x", "c1_bias", "relu", "last_bias", "mean", "flat"}


def test_modules_of_another_form_are_refused(net):
    main = net(lambda layers, x: layers.conv(x, "c1"))["main"].without_attr("global_symbol")
    other = tvm.IRModule({"other": main})
    with pytest.raises(QuantizeError, match="needs a Relax function 'main'; its functions: other"):
        annotate(other)
    body = relax.SeqExpr([], main.params[0])
    empty = relax.Function(main.params, body, main.params[0].ty)
    with pytest.raises(QuantizeError, match="'main' must be one dataflow block, but it is not"):
        annotate(tvm.IRModule({"main": empty}))
