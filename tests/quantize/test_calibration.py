"""Calibration: the thresholds that come out, and what bad data is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tvm import relax
from tvm.relax import op as R

import relaxquant
from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.annotate import annotate
from relaxquant.quantize.calibrate import calibrate, observed_module
from relaxquant.quantize.graph import prepare, read_graph
from relaxquant.quantize.pipeline import quantize


def small(layers, x):
    return layers.conv(layers.relu(layers.conv(x, "c1"), "r1"), "c2")


def thresholds(mod, batches, stock, **settings):
    """{tensor name: threshold}, after a look at the other end of each range."""
    mod, config = prepare(mod), QConfig.best(**({"asymmetric": False} | settings))
    annotation = annotate(mod, config)
    found = calibrate(mod, annotation, config, batches, compile_fn=stock)
    for node, values in found.items():
        assert values.low == (-values.high if annotation.tensors[node].signed else 0)
    return {annotation.graph.nodes[node].name: values.high for node, values in found.items()}


def relu_values(net, stock, batches):
    """The true values of r1."""
    mod = net(lambda layers, x: layers.relu(layers.conv(x, "c1"), "r1"))
    run = stock(mod)
    return np.stack([run(batch)[0] for batch in batches])


def test_min_max_over_all_batches(net, stock, batches):
    found = thresholds(net(small), batches, stock, calibrate_mode="min_max")
    assert found["x"] == np.abs(batches).max()
    assert found["r1"] == pytest.approx(relu_values(net, stock, batches).max(), rel=1e-6)
    assert set(found) == {"x", "r1"}


def test_percentile(net, stock, batches):
    found = thresholds(net(small), batches, stock, calibrate_mode="percentile", percentile=90)
    values = relu_values(net, stock, batches)
    assert found["r1"] == pytest.approx(np.percentile(values, 90), abs=float(values.max()) / 1000)
    assert found["r1"] < values.max() / 2


def test_global_scale_needs_no_data_and_no_compiler(net):
    def never(mod):
        raise AssertionError("compiled")

    found = thresholds(net(small), None, never, calibrate_mode="global_scale", global_scale=3.0)
    assert found == {"x": 3.0 * 127 / 128, "r1": 3.0 * 255 / 256}


def test_symbolic_batch_takes_batches_of_any_size(net, stock, batches):
    batches = [batch * (index + 1) for index, batch in enumerate(batches)]
    batches[-1][-1] *= 2  # the last image matters
    whole = np.concatenate(batches)
    mod = net(small, shape=("n", 3, 8, 8))
    uneven = thresholds(mod, [whole[:1], whole[1:]], stock, calibrate_mode="min_max")
    fixed = thresholds(net(small), batches, stock, calibrate_mode="min_max")
    assert uneven == pytest.approx(fixed, rel=1e-6)


def test_generators_and_torch_tensors(net, stock, batches):
    tensors = (torch.from_numpy(batch).requires_grad_() for batch in batches)
    assert thresholds(net(small), tensors, stock) == thresholds(net(small), batches, stock)


def test_data_is_read_once_and_one_at_a_time(net, stock, batches):
    mod = prepare(net(small))
    annotation = annotate(mod, QConfig.best(asymmetric=False))
    log = []

    def compile_fn(module):
        run = stock(module)

        def logged(x):
            log.append("run")
            return run(x)

        return logged

    def data():
        for batch in batches:
            log.append("read")
            yield batch

    calibrate(mod, annotation, QConfig.best(asymmetric=False), data(), compile_fn=compile_fn)
    assert log == ["read", "run"] * 3


def test_only_ends_of_chains_are_observed(net):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "r1")
        y = layers.emit(R.nn.max_pool2d(y, (2, 2), (2, 2)), "max")
        return layers.emit(R.nn.softmax(layers.conv(y, "c2")), "soft")

    mod = prepare(net(body))
    annotation = annotate(mod, QConfig.best(asymmetric=False))
    nodes = [t.node for t in annotation.tensors.values() if t.is_calibrated]
    observed = observed_module(mod, annotation, [n for n in nodes if n > 0])
    graph = read_graph(observed)
    # max has r1's scale; nothing behind r1 needs to run.
    assert [node.op for node in graph.nodes] == ["input", "nn.conv2d", "add", "nn.relu"]
    assert isinstance(observed["main"].body.body, relax.Var)


def test_relaxquant_compiles_by_default(net, stock, batches, monkeypatch):
    calls = []

    def compile_(mod, **options):
        calls.append(options)
        return stock(mod)

    monkeypatch.setattr(relaxquant, "compile", compile_)
    qmod = quantize(net(small), QConfig.best(bias_correction=False), batches)
    assert calls == [{"target": "native", "executor": "graph"}]
    assert sum(node.op == "quantize" for node in read_graph(qmod).nodes) == 2


def test_progress_is_drawn_only_when_asked_for(net, stock, batches, capsys):
    quantize(net(small), QConfig.best(asymmetric=False), batches, compile_fn=stock)
    assert capsys.readouterr().out == ""
    quantize(net(small), QConfig.best(asymmetric=False), batches, compile_fn=stock, progress=True)
    assert "calibrate" in capsys.readouterr().out


GOOD = np.zeros((2, 3, 8, 8), np.float32)
NAN = np.where(np.arange(GOOD.size).reshape(GOOD.shape) == 5, np.nan, GOOD).astype(np.float32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "calibration data is missing; 'x' takes float32 \\(2, 3, 8, 8\\)"),
        ([], "calibration data is empty: give at least one batch"),
        (GOOD, "is one array, not a sequence of batches: use \\[batch\\]"),
        ([GOOD, [1, 2]], "calibration batch 1 is a list, not a NumPy array"),
        ([GOOD.astype("float64")], "calibration batch 0 is float64; 'x' takes float32"),
        ([GOOD[:, :1]], "calibration batch 0 has shape \\(2, 1, 8, 8\\); 'x' takes"),
        ([GOOD, GOOD[0]], "calibration batch 1 has shape \\(3, 8, 8\\)"),
        ([GOOD[:1]], "calibration batch 0 has shape \\(1, 3, 8, 8\\)"),
        ([GOOD, NAN], "calibration batch 1 holds 1 value\\(s\\) that are NaN or infinite"),
    ],
)
def test_bad_data_is_named(net, stock, data, message):
    with pytest.raises(QuantizeError, match=message):
        quantize(net(small), QConfig.best(asymmetric=False), data, compile_fn=stock)


def test_an_empty_batch(net, stock):
    mod = net(small, shape=("n", 3, 8, 8))
    with pytest.raises(QuantizeError, match="shape \\(0, 3, 8, 8\\); 'x' takes float32 \\(n, 3"):
        quantize(mod, QConfig.best(asymmetric=False), [GOOD[:0]], compile_fn=stock)


def test_data_is_checked_before_anything_is_compiled(net):
    def never(mod):
        raise AssertionError("compiled")

    with pytest.raises(QuantizeError, match="empty"):
        quantize(net(small), QConfig.best(asymmetric=False), [], compile_fn=never)


def test_a_tensor_that_overflows_is_named(net, stock):
    def body(layers, x):
        y = layers.emit(R.exp(layers.conv(x, "c1")), "e1")
        return layers.conv(y, "c2")

    with pytest.raises(QuantizeError, match="in calibration, tensor 'e1' holds NaN or infinity"):
        quantize(net(body), QConfig.best(asymmetric=False), [GOOD + 1e4], compile_fn=stock)


def test_networks_calibration_cannot_feed(net, stock):
    symbolic = net(lambda layers, x: layers.conv(x, "c1"), shape=(1, 3, "h", 8))
    with pytest.raises(QuantizeError, match="only its first axis, the batch, may be symbolic"):
        quantize(symbolic, QConfig.best(asymmetric=False), [GOOD], compile_fn=stock)
    bb = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 4), "float32"))
    w = relax.Var("w", relax.TensorType((4, 4), "float32"))
    with bb.function("main", [x, w]):
        with bb.dataflow():
            y = bb.emit(R.matmul(x, relax.const(np.eye(4, dtype="float32"))))
            out = bb.emit_output(R.matmul(y, w))
        bb.emit_func_output(out)
    with pytest.raises(QuantizeError, match="one input, but this has 2 \\(x, w\\)"):
        quantize(bb.get(), QConfig.best(asymmetric=False), [GOOD], compile_fn=stock)
