"""``partition_conversions``: three functions that together are the network."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.parts import joined
from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.graph import read_graph
from relaxquant.quantize.pipeline import quantize
from relaxquant.quantize.summary import summary


def body(layers, x):
    y = layers.relu(layers.conv(x, "stem"), "r0")
    y = layers.emit(R.nn.max_pool2d(y, (2, 2), (2, 2)), "pool")
    z = layers.conv(layers.relu(layers.conv(y, "deep", groups=8), "r1"), "inner")
    y = layers.head(layers.relu(layers.add(z, y, "sum"), "r2"))
    return layers.emit(R.nn.softmax(y), "soft")


def partitioned(net, stock, batches, body=body, kind="enabled", **settings):
    config = QConfig.best(partition_conversions=kind, **settings)
    return quantize(net(body), config, batches, compile_fn=stock)


def function(module, name):
    """(parameter dtypes, result dtypes, operators) of a function."""
    found = module[name]
    fields = getattr(found.ret_ty, "fields", None)
    results = list(fields) if fields is not None else [found.ret_ty]
    calls = [b.value for block in found.body.blocks for b in block.bindings]
    names = [c.op.name.removeprefix("relax.") for c in calls if isinstance(c, relax.Call)]
    return [str(p.ty.dtype) for p in found.params], [str(r.dtype) for r in results], names


def test_integers_go_in_and_come_out_of_the_middle(net, stock, batches):
    module = partitioned(net, stock, batches, kind="fully_integral")
    assert relax.analysis.well_formed(module) is not False
    assert function(module, "prefix") == (["float32"], ["uint8"], ["quantize"])
    params, results, names = function(module, "middle")
    assert (params, results) == (["uint8"], ["int32"])
    assert names.count("nn.conv2d") == 3 and names.count("matmul") == 1
    params, results, names = function(module, "suffix")
    assert (params, results) == (["int32"], ["float32"])
    assert names == ["astype", "multiply", "add", "nn.softmax"]
    for name in ("prefix", "middle", "suffix"):
        attrs = module[name].attrs
        assert not attrs or "global_symbol" not in attrs
    assert module["main"].attrs["global_symbol"] == "main"


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype_activation": "int16"},
        {"skip_conv_layers": (0, 2), "skip_dense_layer": True},
        {"nbit_input": 4, "rounding": "UPWARD", "weight_granularity": "per_tensor"},
    ],
    ids=str,
)
def test_the_parts_compute_what_the_whole_does(net, stock, batches, settings):
    module = partitioned(net, stock, batches, **settings)
    whole = partitioned(net, stock, batches, kind="disabled", **settings)
    expected = stock(whole)(batches[0])[0]
    np.testing.assert_allclose(stock(module)(batches[0])[0], expected, rtol=1e-4, atol=1e-5)
    library, plain = (rq.compile(m, threads=1, cache=False) for m in (module, whole))
    np.testing.assert_array_equal(library(batches[0]), plain(batches[0]))
    assert [(r.op, r.precision) for r in library.kernels] == [
        (r.op, r.precision) for r in plain.kernels
    ]
    assert summary(module) == summary(whole)
    names = {(node.name, node.op) for node in read_graph(whole).nodes}
    assert names <= {(node.name, node.op) for node in read_graph(joined(module)).nodes}


def test_float_operators_in_the_middle_are_refused_by_name(net, stock, batches):
    with pytest.raises(QuantizeError, match=r"nn\.conv2d 'deep' \(skip_conv_layers holds 1\)"):
        partitioned(net, stock, batches, kind="fully_integral", skip_conv_layers=(1,))

    def sigmoid(layers, x):
        y = layers.emit(R.sigmoid(layers.conv(x, "c1")), "s")
        return layers.conv(y, "c2")

    with pytest.raises(QuantizeError, match=r"sigmoid 's' \(nn\.sigmoid|sigmoid 's' \(sigmoid has"):
        partitioned(net, stock, batches, sigmoid, "fully_integral")
    partitioned(net, stock, batches, sigmoid, "enabled")


def test_results_from_every_part(net, stock, batches):
    def several(layers, x):
        y = layers.relu(layers.conv(x, "c1"), "features")
        return relax.Tuple([layers.emit(R.abs(x), "first"), y, layers.conv(y, "c2")])

    module = partitioned(net, stock, batches, several)
    whole = partitioned(net, stock, batches, several, "disabled")
    for one, other in zip(stock(module)(batches[0]), stock(whole)(batches[0]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    with pytest.raises(QuantizeError, match="'features' leaves it in float"):
        partitioned(net, stock, batches, several, "fully_integral")


def test_symbolic_batch_and_other_functions(net, stock, batches):
    mod = net(lambda layers, x: layers.head(layers.conv(x, "c1")), shape=("n", 3, 8, 8))
    extra = net(lambda layers, x: layers.relu(x, "r"))["main"]
    mod["extra"] = relax.utils.copy_with_new_vars(extra).with_attr("global_symbol", "extra")
    config = QConfig.best(partition_conversions="enabled")
    module = quantize(mod, config, batches, compile_fn=stock)
    names = {var.name_hint for var in module.get_global_vars()}
    assert names == {"main", "prefix", "middle", "suffix", "extra"}
    assert stock(module)(np.concatenate(batches))[0].shape == (6, 5)
    assert {var.name_hint for var in joined(module).get_global_vars()} == {"main", "extra"}
    library = rq.compile(module, batch=2, threads=1, cache=False)
    assert library(batches[0]).shape == (2, 5)


def test_names_of_functions_as_names_of_tensors(net, stock, batches):
    def body(layers, x):
        y = layers.relu(layers.conv(x, "prefix"), "suffix")
        return layers.conv(y, "middle")

    module = partitioned(net, stock, batches, body)
    assert module["main"].attrs["global_symbol"] == "main"
    assert isinstance(module, tvm.IRModule)
    assert len(stock(module)(batches[0])) == 1


def test_a_module_without_parts_is_itself(net):
    module = net(body)
    assert joined(module).same_as(module)
