"""`rq.debug`: its ratios, shares and histograms against the same written in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.debug import BINS, _Spread
from relaxquant.quantize.graph import prepare, read_graph
from relaxquant.quantize.pipeline import quantize
from tests.quantize.pointwise import (
    LAYERS,
    conv,
    exact_values,
    float_weights,
    operands,
    pointwise,
    ratio,
    relu,
    rounded,
)


def test_ratios_are_those_of_the_arithmetic_written_out(net, stock, batches):
    mod, config = net(pointwise), QConfig.best(nbit_weight=5, nbit_ends=None, bias_correction=False)
    qmod = quantize(mod, config, batches, compile_fn=stock)
    report = rq.debug(mod, qmod, batches)
    (data, weights), x = operands(qmod), np.concatenate(batches).astype(np.float64)
    w = float_weights(mod)
    exact = exact_values(w, x)

    def forward(source):
        """Every tensor, computed from what `source` has for those before it."""
        values = {"x": rounded(x, *data["x"])}
        for name, layer, before in LAYERS:
            read = values[before] if source is None else rounded(source[before], *data[before])
            y = conv(read, weights[layer])
            values[name] = rounded(relu(y), *data[name]) if name in data else y
        return values

    accumulated, own = forward(None), forward(exact)
    assert [layer.tensor for layer in report.layers] == ["x", "r0", "r1", "out"]
    assert [layer.op for layer in report.layers] == ["input"] + ["nn.conv2d"] * 3
    assert [(r.bits, r.weight_bits) for r in report.layers] == [(8, 0), (8, 5), (8, 5), (0, 5)]
    for layer in report.layers:
        name = layer.tensor
        # float32 sums move a few values over a rounding boundary, by one step.
        assert layer.sqnr == pytest.approx(ratio(exact[name], accumulated[name]), abs=0.05), name
        assert layer.own_sqnr == pytest.approx(ratio(exact[name], own[name]), abs=0.05), name
    for error in report.weights:
        expected = ratio(w[error.layer], weights[error.layer])
        assert error.sqnr == pytest.approx(expected, abs=1e-3) and error.bits == 5


def test_shares_and_histograms_count_values(net, stock, batches):
    mod = net(pointwise)
    config = QConfig.best(calibrate_mode="percentile", percentile=90.0, asymmetric=False)
    qmod = quantize(mod, config, batches, compile_fn=stock)
    report = rq.debug(mod, qmod, batches)
    scale, _, low, high = operands(qmod)[0]["x"]
    x = np.concatenate(batches)
    first = report.layers[0]
    outside = (x > (high + 0.5) * scale) | (x < (low - 0.5) * scale)
    assert first.clipped == np.mean(outside) > 0.05
    codes = np.clip(np.rint(x / scale), low, high)
    assert (first.at_lowest, first.at_highest) == (np.mean(codes == low), np.mean(codes == high))
    histogram = report.activation_histograms["x"]
    assert (histogram.low, histogram.high) == pytest.approx((low * scale, high * scale))
    assert len(histogram.counts) == BINS and histogram.counts.sum() == x.size
    np.testing.assert_allclose(
        np.cumsum(histogram.counts), [np.sum(x < edge) for edge in histogram.edges[1:]], atol=3
    )
    weight = report.weight_histograms["c0"]
    assert weight.counts.sum() == 8 * 3 and weight.high.shape == (8,)


def test_a_spread_doubles_without_losing_a_value():
    spread, rng = _Spread(), np.random.default_rng(0)
    parts = [np.zeros(5), rng.normal(size=1000), rng.normal(size=1000) * 30]
    for part in parts:
        spread.add(part)
    values = np.concatenate(parts)
    assert spread.counts.sum() == values.size and spread.reach >= np.abs(values).max()
    expected, _ = np.histogram(values, BINS, (-spread.reach, spread.reach))
    assert np.abs(np.cumsum(spread.counts) - np.cumsum(expected)).max() <= 2


def test_the_layer_with_fewer_bits_is_the_worst_and_is_marked(net, stock, batches):
    mod = net(pointwise)
    reports = [
        rq.debug(mod, quantize(mod, QConfig.best(**s), batches, compile_fn=stock), batches[0])
        for s in ({}, {"layer_bits": {"c1": 2}})
    ]
    assert reports[1].worst.tensor == "r1" and reports[1].worst.weight_bits == 2
    (line,) = [line for line in str(reports[1]).splitlines() if line.endswith("<- worst")]
    assert line.startswith("r1")
    plain, mixed = ({r.tensor: r.own_sqnr for r in report.layers} for report in reports)
    assert mixed["r1"] < plain["r1"] - 20
    for other in ("x", "r0", "out"):  # exact inputs: the bad layer before it does not count
        assert mixed[other] == pytest.approx(plain[other], abs=0.01)
    after = [r.sqnr for r in reports[1].layers][-1]
    assert after < reports[0].layers[-1].sqnr - 10


def residual(layers, x):
    y = layers.relu(layers.conv(x, "c0"), "r0")
    y = layers.relu(layers.add(layers.conv(y, "c1"), y, "sum"), "r1")
    return layers.head(y)


def test_a_symbolic_batch_and_one_array(net, stock, batches):
    mod = net(residual, shape=("n", 3, 8, 8))
    config = QConfig.best(asymmetric=False)  # searched end by end, which is another for each batch
    qmod = quantize(mod, config, batches, compile_fn=stock)
    fixed = net(residual)
    one = rq.debug(mod, qmod, np.concatenate(batches))
    other = rq.debug(fixed, quantize(fixed, config, batches, compile_fn=stock), batches)
    assert [r.tensor for r in one.layers] == ["x", "r0", "r1", "mean", "flat", "out"]
    for a, b in zip(one.layers, other.layers, strict=True):
        assert a.sqnr == pytest.approx(b.sqnr, abs=0.1) and a.at_highest == b.at_highest


def test_what_does_not_belong_together_is_refused(net, batches):
    config = QConfig.best(calibrate_mode="global_scale")
    mod, other = net(pointwise), net(residual)
    qmod = quantize(mod, config)
    with pytest.raises(QuantizeError, match=r"not made from this one: 'c0_bias', a add"):
        rq.debug(other, qmod, batches)
    wide = net(lambda layers, x: layers.conv(x, "c0", channels=9, kernel=1, bias=False))
    with pytest.raises(
        QuantizeError, match=r"'out', a nn.conv2d of 2x9x8x8, is a nn.conv2d of 2x4x8x8 in it"
    ):
        rq.debug(wide, qmod, batches)
    with pytest.raises(QuantizeError, match="second module holds no quantize and dequantize"):
        rq.debug(mod, mod, batches)
    with pytest.raises(QuantizeError, match="holds quantize or dequantize already"):
        rq.debug(qmod, qmod, batches)
    with pytest.raises(QuantizeError, match=r"batch 0 has shape \(2, 3, 8, 7\)"):
        rq.debug(mod, qmod, batches[0][..., :7])
    with pytest.raises(QuantizeError, match="empty"):
        rq.debug(mod, qmod, [])


def test_tensors_of_one_name_are_told_apart(stock, batches):
    """As ONNX and torch frontends name them."""
    x = relax.Var("x", relax.TensorType((2, 3, 8, 8), "float32"))
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 3, 1, 1)).astype("float32") for _ in range(3)]
    bindings, value = [], x
    for weight in weights:
        call = relax.BlockBuilder().normalize(R.nn.conv2d(value, relax.const(weight)))
        value = relax.DataflowVar("lv", call.ty)
        bindings.append(relax.VarBinding(value, call))
    out = relax.Var("gv", value.ty)
    block = relax.DataflowBlock([*bindings, relax.VarBinding(out, value)])
    function = relax.Function([x], relax.SeqExpr([block], out), out.ty)
    mod = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    names = [layer.name for layer in read_graph(prepare(mod)).nodes]
    assert len(set(names)) == 4
    config = QConfig.best(layer_bits={names[2]: 2})
    qmod = quantize(mod, config, batches, compile_fn=stock)
    assert [row.weight_bits for row in rq.debug(mod, qmod, batches).layers] == [0, 8, 2, 8]


@pytest.mark.parametrize(
    "settings",
    [{"nbit_weight": 16, "nbit_input": 16}, {"dtype_activation": "int16"}, {"rounding": "UPWARD"}],
)
def test_other_forms_of_qdq(net, stock, batches, settings):
    mod = net(pointwise)
    qmod = quantize(mod, QConfig.best(**settings), batches, compile_fn=stock)
    report = rq.debug(mod, qmod, batches)
    assert {"x", "r0", "r1", "out"} <= {layer.tensor for layer in report.layers}
    assert min(layer.own_sqnr for layer in report.layers) > 15  # sums of 16 bits saturate
    alone = rq.sensitivity(mod, batches, QConfig.best(**settings))
    assert min(row.sqnr for row in alone) > 15


@pytest.mark.parametrize("dtype_activation", ["int32", "int8"])
def test_an_input_that_stays_float(net, stock, batches, dtype_activation):
    mod = net(pointwise)
    config = QConfig.relay_default(dtype_activation=dtype_activation)  # skips the first layer
    report = rq.debug(mod, quantize(mod, config), batches, compile_fn=stock)
    layers = {layer.tensor: layer for layer in report.layers}
    assert "x" not in layers and {"r0", "r1", "out"} <= set(layers)
    # What leaves the float layer has been rounded once, whichever way one looks at it.
    assert layers["r0"].sqnr == layers["r0"].own_sqnr < 80


def test_what_only_chooses_values_has_the_bits_of_what_it_reads(net, stock, batches):
    def body(layers, x):
        return layers.conv(layers.emit(R.nn.max_pool2d(x, (2, 2), (2, 2)), "pool"), "c")

    mod = net(body)
    qmod = quantize(mod, QConfig.best(nbit_input=3, nbit_ends=None), batches, compile_fn=stock)
    report = rq.debug(mod, qmod, batches, compile_fn=stock)
    assert {layer.tensor: layer.bits for layer in report.layers} == {"x": 3, "pool": 3, "out": 0}
