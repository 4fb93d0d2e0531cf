"""The simulated float network equals the integer one: every quantized activation, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.lower import simulate
from relaxquant.quantize.graph import read_graph, rebuild
from tests.frontends.test_tflite import INT8, UINT8, picture
from tests.frontends.tflite_models import NONE, SAME, Network
from tests.lower.qdq import module
from tests.networks import NETWORKS, make

RNG = np.random.default_rng(3)
SETTINGS = {
    "w8a8": {},
    "w4a8, cut off": {"nbit_weight": 4, "round_for_shift": False},
    "w4a4, upward": {"nbit_weight": 4, "nbit_input": 4, "rounding": "UPWARD"},
    "w2a2, half away": {"nbit_weight": 2, "nbit_input": 2, "rounding": "TONEAREST"},
    "w8a16": {"nbit_input": 16},
    "asymmetric, int16 sums": {"asymmetric": True, "dtype_activation": "int16"},
    "some in float": {"skip_conv_layers": [1], "skip_dense_layer": True},
}
CASES = [
    *((name, "w8a8") for name in NETWORKS),
    ("inverted_residual", "w4a4, upward"),
    ("branches", "asymmetric, int16 sums"),
    *(("residual", s) for s in ("w4a8, cut off", "w2a2, half away", "w8a16", "some in float")),
]


def observed(qmod):
    """The QDQ module that returns every quantized activation, then its result."""
    graph = read_graph(qmod)
    pairs = [node.var for node in graph.nodes if node.op == "dequantize" and node.inputs]
    return rebuild(qmod, graph, result=relax.Tuple([*pairs, graph.result]))


def quantized(name: str, setting: str):
    """An observed QDQ module, and an input of which the network has not seen all."""
    network, x = make(name)
    config = rq.QConfig.best(**SETTINGS[setting])
    qmod = rq.quantize(rq.frontends.from_torch(network, x), config, [x.numpy()])
    return observed(qmod), 1.1 * x.numpy()


def runs(mod, *inputs, **settings) -> list[np.ndarray]:
    """All outputs."""
    outputs = rq.compile(mod, threads=1, cache=False, **settings)(*inputs)
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def assert_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Bit for bit, and not because there is nothing in it."""
    assert all(len(np.unique(array)) > 3 for array in expected)
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_array_equal(one, other, err_msg=f"output {index}")


def operators_and_dtypes(mod) -> tuple[set[str], set[str]]:
    nodes = read_graph(mod).nodes
    return {node.op for node in nodes}, {str(node.var.ty.dtype) for node in nodes}


@pytest.mark.parametrize("name,setting", CASES)
def test_every_activation_is_that_of_the_integer_network(name, setting):
    """By stock TVM, with an instruction set that fuses products and sums, and by our kernels."""
    qmod, x = quantized(name, setting)
    simulated = simulate(qmod)
    operators, dtypes = operators_and_dtypes(simulated)
    assert not operators & {"quantize", "dequantize"}
    assert dtypes <= {"float32", "float64"}
    expected = runs(qmod, x)
    assert_equal(runs(simulated, x), expected)
    by_stock = runs(simulated, x, executor="naive")
    if setting == "some in float":
        assert_equal(by_stock[:2], expected[:2])  # up to the first layer that sums in float
    else:
        assert_equal(by_stock, expected)


def test_a_batch_of_any_size():
    network, x = make("flatten_dense", batch=4)
    fp32 = rq.frontends.from_torch(network, x, dynamic_batch=True)
    qmod = observed(rq.quantize(fp32, None, [x.numpy()]))
    few = x.numpy()[:3]
    assert_equal(runs(simulate(qmod), few, executor="vm"), runs(qmod, few, executor="vm"))


def wide(weight: np.ndarray, dtype: str, largest: int):
    """A 1x1 convolution of steps of 1, whose sums leave it as they are."""

    def body(net, x):
        x = net.pair(x, 1.0, dtype, largest)
        return net.bias(net.conv2d(x, weight, np.ones(len(weight))), np.arange(len(weight)))

    return module((1, weight.shape[1], 3, 3), body)


def test_a_sum_of_activations_is_rounded_once():
    """Added by a convolution and by itself; the last bit of a float shows it."""
    weight = RNG.integers(-127, 128, (20, 20, 3, 3)).astype(np.int8)

    def body(net, x):
        fine, coarse = (net.pair(x, scale, "int8") for scale in (0.0137, 0.0251))
        y = net.conv2d(fine, weight, np.linspace(0.5, 1.5, 20) / 1270, padding=(1, 1))
        return relax.Tuple([net.bb.emit(R.add(y, coarse)), net.bb.emit(R.add(fine, coarse))])

    mod = module((1, 20, 9, 9), body)
    x = RNG.standard_normal((1, 20, 9, 9)).astype(np.float32)
    expected, simulated = runs(mod, x), simulate(mod)
    for executor in ("graph", "naive"):
        assert_equal(runs(simulated, x, executor=executor), expected)


@pytest.mark.parametrize(
    "weights,dtype,largest",
    [("int8", "int8", 127), ("int8", "int16", 3000), ("int16", "int16", 3000)],
)
def test_sums_beyond_what_float32_counts(weights, dtype, largest):
    """Rounded once, when they become float32: by two convolutions, or by one in float64."""
    ends = (120, 128) if weights == "int8" else (300, 400)
    weight = RNG.integers(*ends, (16, 1300, 1, 1)).astype(weights)
    mod = wide(weight, dtype, largest)
    x = RNG.integers(largest - 20, largest + 1, (1, 1300, 3, 3)).astype(np.float32)
    exact = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0].astype(int), x.astype(int))
    exact += np.arange(16).reshape(-1, 1, 1)
    assert exact.min() > 2**24 and exact.max() < 2**31
    (expected,) = runs(mod, x)
    np.testing.assert_array_equal(expected, exact.astype(np.float32))
    simulated = simulate(mod)
    convolutions = [node for node in read_graph(simulated).nodes if node.op == "nn.conv2d"]
    dtypes = ["float32"] * 2 if dtype == "int8" else ["float64"]
    assert [str(node.var.ty.dtype) for node in convolutions] == dtypes
    for executor in ("graph", "naive"):
        assert_equal(runs(simulated, x, executor=executor), [expected])


def test_winograds_rounding_does_not_count():
    """Whole weights are convolved directly, and where Winograd is asked for, sums are rounded."""
    weight = RNG.integers(-7, 8, (32, 32, 3, 3)).astype(np.int8)

    def body(net, x):
        x = net.pair(x, 1.0, "int8", 127)
        return net.conv2d(x, weight, np.ones(32), padding=(1, 1))

    mod = module((1, 32, 24, 24), body)
    x = RNG.integers(-127, 128, (1, 32, 24, 24)).astype(np.float32)
    simulated = simulate(mod)
    expected = runs(mod, x)
    for schedule, taken in (("auto", "nchw_spatial_pack"), ("nchw_winograd", "nchw_winograd")):
        library = rq.compile(simulated, threads=1, cache=False, schedule=schedule)
        assert {r.schedule for r in library.kernels.where(op="conv2d")} == {taken}
        assert_equal([library(x)], expected)


@pytest.mark.parametrize("kind", [UINT8, INT8], ids=["uint8", "int8"])
def test_models_that_arrive_quantized(kind, tmp_path):
    """The caller's integers, products, tables, resizing, concatenation, pooling and softmax."""
    network = Network()
    x = network.input((1, 9, 8, 6), *kind)
    weights = ("uint8", 119, False) if kind == UINT8 else None
    y = network.conv2d(x, 20, 3, weights=weights)
    low, (dtype, scale, zero_point) = np.iinfo(kind[0]).min, network.same(y)
    gate = network.conv2d(network.pool("AVERAGE", y, 3, 2), 20, 3, stride=4)
    gate = network.operator("LOGISTIC", [gate], ((1, 1, 1, 20), dtype, 1 / 256, low))
    out = ((1, 9, 8, 20), dtype, scale / 2, zero_point - 3)
    y = network.operator("MUL", [y, gate], out, "MulOptions", FusedActivationFunction=NONE)
    size = network.constant(np.array([13, 11], np.int32))
    shape = (1, 13, 11, 20)
    parts = [
        network.operator(
            f"RESIZE_{code}", [y, size], (shape, *network.same(y)), f"Resize{options}Options",
            AlignCorners=False, HalfPixelCenters=code == "BILINEAR",
        )
        for code, options in (
            ("BILINEAR", "Bilinear"),
            ("NEAREST_NEIGHBOR", "NearestNeighbor"),
        )
    ]  # fmt: skip
    out = ((1, 13, 11, 40), dtype, scale * 0.6, zero_point)
    y = network.operator(
        "CONCATENATION", parts, out, "ConcatenationOptions", Axis=3, FusedActivationFunction=NONE
    )
    y = network.pool("MAX", y, 3, 2, SAME)
    pooled = network.operator(
        "MEAN", [y, network.constant(np.array([1, 2], np.int32))],
        ((1, 40), dtype, scale / 4, zero_point), "ReducerOptions", KeepDims=False,
    )  # fmt: skip
    out = ((1, 40), dtype, 1 / 256, low)
    softmax = network.operator("SOFTMAX", [pooled], out, "SoftmaxOptions", Beta=1.0)
    qmod = rq.frontends.from_tflite(network.save(tmp_path / "model.tflite", [y, pooled, softmax]))
    image = picture(network.tensors[x])
    expected = runs(qmod, image)
    simulated = simulate(qmod)
    assert not operators_and_dtypes(simulated)[0] & {"quantize", "dequantize"}
    for executor in ("graph", "naive"):
        assert_equal(runs(simulated, image, executor=executor), expected)


@pytest.mark.parametrize("kind", [UINT8, INT8], ids=["uint8", "int8"])
def test_the_caller_gives_and_takes_integers(kind, tmp_path):
    network = Network()
    x = network.input((1, 7, 6, 5), *kind)
    y = network.conv2d(x, 20, 3, stride=2)
    qmod = rq.frontends.from_tflite(network.save(tmp_path / "model.tflite", [y]))
    image = picture(network.tensors[x])
    (expected,), (found,) = (runs(each, image) for each in (qmod, simulate(qmod)))
    assert found.dtype == expected.dtype == image.dtype
    assert_equal([found], [expected])


def test_what_is_computed_at_run_time_is_one_error():
    def body(net, x):
        scale = net.bb.emit(R.max(x))
        zero = relax.const(np.zeros((), np.int8))
        steps = net.bb.emit(R.quantize(x, scale, zero, axis=1, out_dtype="int8"))
        return net.bb.emit(R.dequantize(steps, scale, zero, axis=1))

    with pytest.raises(rq.ModelError, match="must be constants to be simulated"):
        simulate(module((1, 4, 3, 3), body))
