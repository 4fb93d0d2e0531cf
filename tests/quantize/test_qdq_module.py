"""The QDQ module: its form, and its numbers against the same arithmetic written in torch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import tvm
from torch.nn import functional as F
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax import op as R

from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.graph import read_graph
from relaxquant.quantize.pipeline import quantize
from relaxquant.quantize.summary import summary


def block(layers, x):
    """Stem, max pool, a residual block with two convolutions, and a head; all kinds of tensors."""
    y = layers.relu(layers.conv(x, "stem"), "r0")
    y = layers.emit(R.nn.max_pool2d(y, (2, 2), (2, 2)), "pool")
    z = layers.relu(layers.conv(y, "deep", groups=8), "r1")
    z = layers.conv(z, "inner", bias=False)
    z = layers.relu(layers.add(z, layers.conv(y, "side", kernel=1), "sum"), "r2")
    return layers.head(z)


def constants_of(body, net):
    """The float constants a body makes, by name."""
    kept = {}

    def wrapped(layers, x):
        out = body(layers, x)
        kept.update(layers.constants)
        return out

    return net(wrapped), kept


def db(reference, approximation):
    """Signal to noise ratio in dB."""
    noise = np.mean((reference - approximation) ** 2)
    return 10 * np.log10(np.mean(reference**2) / max(noise, 1e-30))


# --- numbers ---------------------------------------------------------------------------------


class FakeQuant:
    """The network `block` in torch: first pass collects maxima, second one rounds to 8 bits."""

    def __init__(self, constants, qmax, per_channel):
        self.c = {k: torch.from_numpy(v) for k, v in constants.items()}
        self.qmax, self.per_channel = qmax, per_channel
        self.maxima: dict[str, torch.Tensor] = {}
        self.rounding = False

    def act(self, x, name, unsigned):
        if not self.rounding:
            seen = self.maxima.get(name, torch.tensor(0.0))
            self.maxima[name] = torch.maximum(seen, x.abs().max())
            return x
        low, high = (0, 255) if unsigned else (-128, 127)
        scale = self.maxima[name] / high
        return torch.clamp(torch.round(x / scale), low, high) * scale

    def weight(self, name):
        w = self.c[f"{name}.weight"]
        if not self.rounding:
            return w
        axis = 1 if w.ndim == 2 else 0
        others = [i for i in range(w.ndim) if i != axis]
        largest = w.abs().amax(others, keepdim=True) if self.per_channel else w.abs().max()
        scale = largest / self.qmax
        return torch.round(w / scale) * scale

    def conv(self, x, name, padding=1, groups=1):
        bias = self.c.get(f"{name}.bias")
        bias = None if bias is None else bias.reshape(-1)
        return F.conv2d(x, self.weight(name), bias, padding=padding, groups=groups)

    def __call__(self, x):
        x = self.act(torch.from_numpy(x), "x", False)
        y = F.max_pool2d(self.act(F.relu(self.conv(x, "stem")), "r0", True), 2)
        z = self.act(F.relu(self.conv(y, "deep", groups=8)), "r1", True)
        # side is the later convolution: it takes the addition, inner is quantized.
        inner = self.act(self.conv(z, "inner"), "inner", False)
        z = self.act(F.relu(inner + self.conv(y, "side", padding=0)), "r2", True)
        pooled = self.act(z.mean((2, 3)), "mean", True)
        return (pooled @ self.weight("fc") + self.c["fc.bias"]).numpy()


@pytest.mark.parametrize(
    ("granularity", "reduce_range"), [("per_channel", True), ("per_tensor", False)]
)
def test_stock_tvm_computes_what_fake_quantization_in_torch_does(
    net, stock, batches, granularity, reduce_range
):
    config = QConfig.best(weight_granularity=granularity, reduce_range=reduce_range)
    mod, constants = constants_of(block, net)
    qmod = quantize(mod, config, batches, compile_fn=stock)
    fake = FakeQuant(constants, 64 if reduce_range else 127, granularity == "per_channel")
    float_outputs = [fake(batch) for batch in batches]
    fake.rounding = True
    run = stock(qmod)
    ours = np.stack([run(batch)[0] for batch in batches])
    expected = np.stack([fake(batch) for batch in batches])
    # float32 sums in another order move a few values over a rounding boundary, by one step.
    assert db(expected, ours) > 45
    assert db(np.stack(float_outputs), ours) > 20


def two_layers(layers, x):
    return layers.conv(layers.relu(layers.conv(x, "c1"), "r1"), "c2")


def test_every_setting_moves_the_precision_where_it_should(net, stock, batches):
    mod = net(two_layers)
    run_float = stock(mod)
    exact = np.stack([run_float(batch)[0] for batch in batches])

    def quality(reduce_range=True, **settings):
        settings["reduce_range"] = reduce_range
        run = stock(quantize(mod, QConfig.best(**settings), batches, compile_fn=stock))
        return db(exact, np.stack([run(batch)[0] for batch in batches]))

    default = quality()
    assert quality(reduce_range=False) > default + 1
    assert quality(weight_granularity="per_tensor") < default
    assert quality(calibrate_mode="global_scale", global_scale=80.0) < default - 10
    assert quality(calibrate_mode="percentile", percentile=80.0) < default - 10
    assert quality(skip_conv_layers=(0,)) > default + 1


def test_max_pool_is_exact_in_integers(net, stock, batches):
    def body(layers, x):
        return layers.conv(layers.emit(R.nn.max_pool2d(x, (2, 2), (2, 2)), "pool"), "c")

    qmod = quantize(net(body), QConfig.best(), batches, compile_fn=stock)
    rows = {row.tensor: row for row in summary(qmod)}
    assert rows["pool"].scale == rows["x"].scale and rows["pool"].dtype == rows["x"].dtype


def test_a_dead_relu_and_a_dead_channel(net, stock, batches):
    def body(layers, x):
        dead = layers.emit(R.clip(layers.conv(x, "c0"), -1, 0), "below")
        y = layers.relu(dead, "dead")
        layers.const("c1.weight", 4, 8, 1, 1)
        layers.constants["c1.weight"][1] = 0
        y = layers.emit(R.nn.conv2d(y, relax.const(layers.constants["c1.weight"])), "c1")
        return layers.bias(y, "c1", (1, 4, 1, 1))

    mod = net(body)
    qmod = quantize(mod, QConfig.best(), batches, compile_fn=stock)
    rows = summary(qmod)
    for row in rows:
        assert np.isfinite(row.scale) and row.scale > 0
    scales = [
        n.constants[1].value.numpy() for n in read_graph(qmod).nodes if not n.inputs and n.constants
    ]
    assert all((scale > 0).all() for scale in scales)
    x = batches[0]
    # Nothing but biases is left, and those are whole steps of the sum.
    dead = next(row for row in rows if row.tensor == "dead")
    step = dead.scale * max(scale.max() for scale in scales)
    np.testing.assert_allclose(stock(qmod)(x)[0], stock(mod)(x)[0], atol=step / 2 + 1e-6)


def test_weights_next_to_zero_keep_their_bias(net, stock, batches):
    def body(layers, x):
        y = layers.emit(R.nn.conv2d(x, layers.const("w", 4, 3, 1, 1, scale=1e-9)), "c")
        return layers.bias(y, "c", (1, 4, 1, 1))

    mod = net(body)
    qmod = quantize(mod, QConfig.best(), batches, compile_fn=stock)
    rows = {row.tensor: row for row in summary(qmod)}
    weight = next(n for n in read_graph(qmod).nodes if n.name == "c_weight")
    bias = next(n for n in read_graph(qmod).nodes if n.op == "add").constants[0].value.numpy()
    steps = bias.reshape(-1) / (rows["x"].scale * weight.constants[1].value.numpy())
    assert np.abs(steps).max() < 2**31
    np.testing.assert_allclose(stock(qmod)(batches[0])[0], stock(mod)(batches[0])[0], rtol=1e-3)


# --- form ------------------------------------------------------------------------------------


def test_form_of_activations_weights_and_bias(net, batches, stock):
    qmod = quantize(net(block), QConfig.best(reduce_range=True), batches, compile_fn=stock)
    graph = read_graph(qmod)
    assert relax.analysis.well_formed(qmod) is not False
    by_name = {node.name: node for node in graph.nodes}
    quantized, dequantized = by_name["r0_q"], by_name["r0_dq"]
    assert quantized.value.ty.dtype == "uint8" and dequantized.value.ty.dtype == "float32"
    for side in (quantized, dequantized):
        scale, zero = (arg.value.numpy() for arg in side.value.args[1:])
        assert scale.shape == zero.shape == () and scale.dtype == np.float32 and zero == 0
    conv, dense = by_name["deep_weight"].value, by_name["fc_weight"].value
    assert conv.args[0].ty.dtype == "int8" and conv.attrs["axis"] == 0
    assert list(conv.args[0].ty.shape) == [8, 1, 3, 3] and list(conv.args[1].ty.shape) == [8]
    assert dense.attrs["axis"] == 1 and list(dense.args[1].ty.shape) == [5]
    weights = conv.args[0].value.numpy()
    assert weights.min() >= -64 and weights.max() <= 64
    assert by_name["stem_bias"].op == "add"
    # deep and side read the same pair; the logits are float.
    assert len(graph.consumers[by_name["pool_dq"].index]) == 2
    assert graph.nodes[graph.index_of[graph.result]].op == "add"


def test_per_tensor_weights_have_scalar_scales(net):
    config = QConfig.best(weight_granularity="per_tensor", calibrate_mode="global_scale")
    qmod = quantize(net(block), config)
    weights = [n for n in read_graph(qmod).nodes if n.op == "dequantize" and not n.inputs]
    assert len(weights) == 5
    assert all(len(n.value.args[1].ty.shape) == len(n.value.args[2].ty.shape) == 0 for n in weights)


def test_the_module_given_is_not_changed(net):
    mod = net(block)
    before = mod.script(show_meta=False)
    quantize(mod, QConfig.best(calibrate_mode="global_scale"))
    assert mod.script(show_meta=False) == before


def test_skipped_convolution_reads_the_pair_others_asked_for(net):
    config = QConfig.best(calibrate_mode="global_scale", skip_conv_layers=(3,))
    graph = read_graph(quantize(net(block), config))
    by_name = {node.name: node for node in graph.nodes}
    assert isinstance(by_name["side"].value.args[1], GenericConst)
    assert graph.nodes[by_name["side"].inputs[0]].name == "pool_dq"
    assert "side_bias_q" in by_name  # now inner takes the addition


def test_results_that_are_quantized_for_others_are_returned_in_float(net, stock, batches):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "features")
        return relax.Tuple([y, layers.conv(y, "c2")])

    mod = net(body)
    qmod = quantize(mod, QConfig.best(), batches, compile_fn=stock)
    features, out = stock(qmod)(batches[0])
    assert len(np.unique(features)) > 256  # not rounded to 8 bits
    assert db(stock(mod)(batches[0])[1], out) > 25


def test_symbolic_batch_is_kept(net, stock, batches):
    def body(layers, x):
        return layers.head(layers.relu(layers.conv(x, "c1"), "r1"))

    qmod = quantize(net(body, shape=("n", 3, 8, 8)), QConfig.best(), batches, compile_fn=stock)
    fixed = quantize(net(body), QConfig.best(), batches, compile_fn=stock)
    run = stock(qmod)
    assert run(np.concatenate(batches))[0].shape == (6, 5)
    assert db(stock(fixed)(batches[0])[0], run(batches[0])[0]) > 45


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # inside torch.export
def test_raw_frontend_modules_are_cleaned(stock):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(36, 5)

        def forward(self, x):
            y = F.max_pool2d(F.relu(self.conv(x)), 2)
            return F.log_softmax(self.fc(torch.flatten(y, 1)), -1)

    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(2, 3, 8, 8)
    from tvm.relax.frontend.torch import from_exported_program

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (x,))
    mod = from_exported_program(program, keep_params_as_input=False, unwrap_unit_return_tuple=True)
    qmod = quantize(mod, QConfig.best(), [x], compile_fn=stock)
    ops = [row.producer for row in summary(qmod)]
    assert ops == ["input", "weight", "nn.relu", "nn.max_pool2d", "reshape", "weight"]
    assert db(model(x).detach().numpy(), stock(qmod)(x.numpy())[0]) > 25


def test_twice_is_refused_and_nothing_to_do_is_said(net):
    config = QConfig.best(calibrate_mode="global_scale")
    qmod = quantize(net(block), config)
    with pytest.raises(QuantizeError, match="holds quantize or dequantize already"):
        quantize(qmod, config)
    with pytest.warns(
        UserWarning, match="no layer .* out \\(nn.softmax\\): nn.softmax has no 8-bit"
    ):
        quantize(net(lambda layers, x: layers.emit(R.nn.softmax(x), "s")), config)
    with pytest.raises(QuantizeError, match="config is a dict: give a QConfig"):
        quantize(net(block), {"nbit_input": 8})


def test_weights_that_are_not_finite_are_named(net):
    def body(layers, x):
        weight = np.full((4, 3, 1, 1), np.nan, np.float32)
        y = layers.emit(R.nn.conv2d(x, relax.const(weight)), "broken")
        return layers.relu(y, "r")

    with pytest.raises(QuantizeError, match="layer 'broken': weights hold NaN or infinity"):
        quantize(net(body), QConfig.best(calibrate_mode="global_scale"))


def test_summary_rows(net, batches, stock):
    config = QConfig.best(calibrate_mode="min_max", asymmetric=False)
    rows = summary(quantize(net(block), config, batches, compile_fn=stock))
    table = {(row.tensor, row.producer): row for row in rows}
    assert table["x", "input"].dtype == "int8" and table["x", "input"].channels == 1
    assert table["x", "input"].scale == pytest.approx(np.abs(batches).max() / 127)
    assert table["deep", "weight"].channels == 8 and table["deep", "weight"].dtype == "int8"
    assert table["r2", "nn.relu"][1:4] == ("uint8", table["r2", "nn.relu"].scale, 0)
    assert ("flat", "reshape") in table and ("out", "add") not in table


def test_a_tensor_called_main(net):
    x = relax.Var("x", relax.TensorType((1, 4), "float32"))
    y = relax.DataflowVar("main", relax.TensorType((1, 4), "float32"))
    out = relax.Var("out", relax.TensorType((1, 4), "float32"))
    eye = relax.const(np.eye(4, dtype="float32"))
    bindings = [relax.VarBinding(y, R.matmul(x, eye)), relax.VarBinding(out, R.matmul(y, eye))]
    body = relax.SeqExpr([relax.DataflowBlock(bindings)], out)
    main = relax.Function([x], body, out.ty).with_attr("global_symbol", "main")
    mod = relax.transform.Normalize()(tvm.IRModule({"main": main}))
    qmod = quantize(mod, QConfig.best(calibrate_mode="global_scale"))
    assert "main" in {row.tensor for row in summary(qmod)}
    assert qmod["main"].attrs["global_symbol"] == "main"


def test_other_functions_of_the_module_are_kept(net):
    mod = net(block)
    extra = net(lambda layers, x: layers.relu(x, "r"))["main"]
    mod["extra"] = relax.utils.copy_with_new_vars(extra).with_attr("global_symbol", "extra")
    qmod = quantize(mod, QConfig.best(calibrate_mode="global_scale"))
    assert {gv.name_hint for gv in qmod.get_global_vars()} == {"main", "extra"}
    assert isinstance(qmod, tvm.IRModule)
