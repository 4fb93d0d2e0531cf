"""Mixed precision under a budget: who gets the bits, and that the budget is kept."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.quantize import Budget, QConfig, QuantizeError
from relaxquant.quantize.mixed import choose_bits, steps_down
from relaxquant.quantize.sensitivity import LayerCost, top1_changed


def cost(layer, bits, kl, parameters=100, macs=100):
    return LayerCost(layer, "nn.conv2d", bits, 8, kl, 0.0, 0.0, parameters, macs)


def test_steps_go_by_cost_for_each_bit_saved():
    rows = [cost("a", 4, 1.0), cost("a", 2, 9.0), cost("b", 4, 2.0, 400), cost("b", 2, 3.0, 400)]
    budget = Budget(1.0, (8, 4, 2))
    # Cost of a bit saved, in 1/1200: a 3 then 48, b 1.5 then 1.5.
    expected = [("b", 4), ("b", 2), ("a", 4), ("a", 2)]
    assert steps_down(rows, budget) == steps_down(rows[::-1], budget) == expected
    by_macs = Budget(1.0, (8, 4, 2), per="macs")
    assert steps_down(rows, by_macs) == [("a", 4), ("b", 4), ("b", 2), ("a", 2)]


def test_fewer_bits_never_count_as_a_gain():
    rows = [cost("a", 4, 5.0), cost("a", 2, 1.0), cost("b", 4, 0.1), cost("b", 2, 0.2)]
    steps = steps_down(rows, Budget(1.0, (8, 4, 2)))
    assert steps == [("b", 4), ("b", 2), ("a", 4), ("a", 2)]


def spiky(layers, x):
    """c1 has one large weight in each channel, and what it does with the others decides."""
    y = layers.relu(layers.conv(x, "c0"), "r0")
    layers.const("w", 8, 8, 3, 3, scale=0.1)
    layers.constants["w"][:, 0, 1, 1] = 2.0
    y = layers.emit(R.nn.conv2d(y, relax.const(layers.constants["w"]), padding=1), "c1")
    y = layers.relu(layers.conv(layers.relu(y, "r1"), "c2"), "r2")
    return layers.head(y)


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    return [rng.normal(size=(2, 3, 8, 8)).astype("float32") for _ in range(16)]


def bits_of(qmod):
    return {row.tensor: row.bits for row in rq.summary(qmod) if row.producer == "weight"}


def test_the_sensitive_layer_keeps_more_bits_and_the_budget_is_kept(net, data):
    # Correcting biases would take most of what the spikes cost back.
    mod, config = net(spiky), QConfig.best(skip_dense_layer=True, bias_correction=False)
    budget = Budget(13.0, (8, 4, 2))
    qmod = rq.quantize(mod, config, data, budget=budget)
    chosen = bits_of(qmod)
    assert chosen["c1"] > min(chosen["c0"], chosen["c2"])
    exact, ours = rq.compile(mod), rq.compile(qmod)
    answers = [np.concatenate([run(batch) for batch in data]) for run in (exact, ours)]
    assert top1_changed(*answers) <= budget.loss
    again = rq.quantize(mod, config, iter(data), budget=budget)
    assert again.script(show_meta=True) == qmod.script(show_meta=True)


def test_more_budget_saves_more_and_none_is_kept_too(net, data):
    mod, config = net(spiky), QConfig.best()
    sizes = []
    for loss in (0.0, 99.0):
        chosen = choose_bits(mod, config, data, Budget(loss, (8, 2)))
        assert {name for name, _ in chosen.layer_bits} == {"c0", "c1", "c2", "fc"}
        sizes.append(sum(weight for _, (weight, _) in chosen.layer_bits))
    assert sizes[0] > sizes[1] == 2 * 4


def test_layers_that_the_config_holds_keep_their_bits(net, data):
    config = QConfig.best(layer_bits={"c0": (5, 7)})
    chosen = choose_bits(net(spiky), config, data, Budget(99.0, (8, 3)))
    assert dict(chosen.layer_bits) == {
        "c0": (5, 7),
        "c1": (3, None),
        "c2": (3, None),
        "fc": (3, None),
    }


def test_a_budget_that_cannot_be_kept_is_an_error(net, data):
    config = QConfig.best(calibrate_mode="percentile", percentile=30.0)
    with pytest.raises(QuantizeError, match=r"with 3 bits in every layer .* and the budget is 0"):
        rq.quantize(net(spiky), config, data, budget=Budget(0, (3, 2)))


def test_refusals(net):
    for loss in (-1, 100, "1", True, float("nan")):
        with pytest.raises(QuantizeError, match=r"Budget.loss is .*; allowed: percentage points"):
            Budget(loss)
    with pytest.raises(QuantizeError, match=r"Budget.candidates is .*; allowed: two or more of 1"):
        Budget(1.0, (8, 9))
    with pytest.raises(QuantizeError, match=r"Budget.candidates"):
        Budget(1.0, (8,))
    with pytest.raises(QuantizeError, match=r"Budget.per is 'time'; allowed: 'bytes', 'macs'"):
        Budget(1.0, per="time")
    with pytest.raises(QuantizeError, match="calibration data is missing"):
        rq.quantize(net(spiky), QConfig.best(), None, budget=1.0)
