"""`QConfig.layer_bits`: single layers with bits of their own."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.annotate import annotate
from relaxquant.quantize.graph import prepare, read_graph
from relaxquant.quantize.pipeline import quantize


def three(layers, x):
    """Two convolutions, the second one read by two more through a max pool, and a dense layer."""
    y = layers.relu(layers.conv(x, "c0"), "r0")
    y = layers.emit(R.nn.max_pool2d(y, (2, 2), (2, 2)), "pool")
    z = layers.add(layers.conv(y, "c1"), layers.conv(y, "c2", kernel=1), "sum")
    return layers.head(layers.relu(z, "r1"))


def weights_of(qmod) -> dict[str, np.ndarray]:
    """{layer: its integer weights}."""
    graph = read_graph(qmod)
    constants = [n for n in graph.nodes if n.op == "dequantize" and not n.inputs]
    names = [graph.nodes[graph.consumers[node.index][0]].name for node in constants]
    return dict(zip(names, (n.constants[0].value.numpy() for n in constants), strict=True))


def test_weights_of_named_layers_only(net):
    config = QConfig.best(calibrate_mode="global_scale", reduce_range=False)
    plain = weights_of(quantize(net(three), config))
    mixed = QConfig.best(
        calibrate_mode="global_scale", reduce_range=False, layer_bits={"c1": 4, "fc": 2}
    )
    found = weights_of(quantize(net(three), mixed))
    assert {name: np.abs(values).max() for name, values in found.items()} == {
        "c0": 127,
        "c1": 7,
        "c2": 127,
        "fc": 2,
    }
    for name in ("c0", "c2"):
        np.testing.assert_array_equal(found[name], plain[name])


def test_data_gets_the_most_that_one_of_its_layers_asks_for(net):
    def bits(**layer_bits):
        annotation = annotate(prepare(net(three)), QConfig.best(layer_bits=layer_bits))
        return {t.name: t.nbit for t in annotation.tensors.values()}

    eight = bits()
    assert set(eight.values()) == {8}
    # c1 and c2 read one tensor, which has the scale of what it was pooled from.
    assert bits(c1=(4, 4)) == eight
    four = eight | {"r0": 4, "pool": 4}
    assert bits(c1=(4, 4), c2=(8, 4)) == four
    assert bits(c1=(4, 4), c2=(8, 3)) == four
    assert bits(c0=(8, 6)) == eight | {"x": 6}


def test_mixed_bits_run_and_agree_with_stock(net, stock, batches):
    config = QConfig.best(layer_bits={"c1": (3, 5), "c2": (2, 4), "c0": 6})
    qmod = quantize(net(three), config, batches, compile_fn=stock)
    expected, ours = stock(qmod)(batches[0])[0], rq.compile(qmod)(batches[0])
    np.testing.assert_allclose(ours, expected, atol=0.02 * np.abs(expected).max())


def test_the_field_is_a_value():
    config = QConfig.best(layer_bits={"b": 4, "a": (2, 8)})
    assert config.layer_bits == (("a", (2, 8)), ("b", (4, None)))
    assert config == pickle.loads(pickle.dumps(config)) == copy.deepcopy(config)
    assert config == QConfig.best(layer_bits=config.layer_bits)
    assert hash(config) == hash(QConfig.best(layer_bits=[("b", 4), ("a", [2, 8])]))
    assert config.for_layer("a").nbit_weight == 2 and config.for_layer("c").nbit_weight == 8


@pytest.mark.parametrize(
    "value", [{"a": 9}, {"a": True}, {"a": (4, 9)}, {"a": (4, 4, 4)}, {1: 4}, "a", 4, ["a"]]
)
def test_bad_values_are_refused(value):
    with pytest.raises(QuantizeError, match=r"QConfig.layer_bits is .*; allowed: a mapping of lay"):
        QConfig(layer_bits=value)


def test_a_layer_that_is_not_there_is_named(net):
    config = QConfig.best(calibrate_mode="global_scale", layer_bits={"c5": 4})
    with pytest.raises(QuantizeError, match=r"'c5', which is no layer .*: c0, c1, c2, fc"):
        quantize(net(three), config)


def test_ends_of_a_network_have_bits_of_their_own(net, stock, batches):
    config = QConfig.best(nbit_weight=3, nbit_input=4, layer_bits={"c2": 6}, reduce_range=False)
    assert config.nbit_ends == 8
    qmod = quantize(net(three), config, batches, compile_fn=stock)
    largest = {name: np.abs(values).max() for name, values in weights_of(qmod).items()}
    assert largest == {"c0": 127, "c1": 3, "c2": 31, "fc": 127}
    bits = {row.tensor: round(row.bits) for row in rq.summary(qmod) if row.producer != "weight"}
    assert bits["x"] == 8 and bits["r0"] == 4
    alike = quantize(net(three), replace(config, nbit_ends=None), batches, compile_fn=stock)
    assert {np.abs(weights_of(alike)[name]).max() for name in ("c0", "c1", "fc")} == {3}
