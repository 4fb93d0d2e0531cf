"""from_onnx: float and quantized models agree with ONNX Runtime, and errors name the thing."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="from_onnx needs the package onnx")
pytest.importorskip("onnxruntime", reason="what models are compared with")

from onnx import TensorProto, helper  # noqa: E402

import relaxquant as rq  # noqa: E402
from tests.frontends import onnx_models  # noqa: E402
from tests.frontends.onnx_models import onnxruntime_run  # noqa: E402
from tests.networks import NETWORKS, make  # noqa: E402


@pytest.fixture(autouse=True)
def quiet():
    """torch's exporter and ONNX Runtime's quantizer warn of themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def compiled(model):
    return rq.compile(rq.frontends.from_onnx(model), threads=1)


def quantized(name: str, folder, **options):
    """(path of the quantized network, an input)."""
    network, x = make(name)
    path = onnx_models.exported(network, x, folder / "network.onnx")
    generator = np.random.default_rng(1)
    batches = [x.numpy(), *generator.standard_normal((2, *x.shape), np.float32)]
    return onnx_models.quantized(path, batches, **options), x.numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_float_networks_agree(name, tmp_path):
    network, x = make(name)
    path = onnx_models.exported(network, x, tmp_path / "network.onnx")
    library = compiled(path)
    expected = onnxruntime_run(path, x.numpy())
    assert abs(library(x.numpy()) - expected).max() <= 1e-4 * abs(expected).max()
    assert not [record for record in library.kernels if record.op in ("relu", "batch_norm")]


def test_batch_norm_and_clips_are_folded():
    generator = np.random.default_rng(0)
    channels = generator.uniform(0.5, 2, (4, 6)).astype(np.float32)
    constants = {"w": generator.standard_normal((6, 3, 3, 3), np.float32), "low": np.float32(0)}
    constants |= dict(zip(("gamma", "beta", "mean", "var"), channels, strict=True))
    constants["high"] = np.float32(6)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
        helper.make_node("Clip", ["n", "low", "high"], ["y"]),
    ]
    model = onnx_models.model(nodes, (2, 3, 7, 5), constants)
    module = rq.frontends.from_onnx(model)
    bindings = module["main"].body.blocks[0].bindings
    assert [b.value.op.name for b in bindings] == ["relax.nn.conv2d", "relax.add", "relax.clip"]
    x = generator.standard_normal((2, 3, 7, 5), np.float32)
    assert abs(rq.compile(module)(x) - onnxruntime_run(model, x)).max() < 1e-5


def test_the_bounds_of_an_old_clip_are_read():
    node = helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=1.0)
    model = onnx_models.model([node], (1, 2, 3, 3), {})
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 10))
    x = np.linspace(-2, 2, 18, dtype=np.float32).reshape(1, 2, 3, 3)
    assert np.array_equal(compiled(model)(x), np.clip(x, -0.5, 1))


@pytest.mark.parametrize("qoperator", [False, True], ids=["qdq", "qoperator"])
@pytest.mark.parametrize("name", NETWORKS)
def test_quantized_networks_agree(name, qoperator, tmp_path):
    """All layers multiply integers, and outputs are ONNX Runtime's but for steps of rounding."""
    path, x = quantized(name, tmp_path, qoperator=qoperator)
    library = compiled(path)
    layers = [record for record in library.kernels if record.macs]
    assert {record.precision for record in layers} == {"int8"}
    expected = onnxruntime_run(path, x)
    assert abs(library(x) - expected).max() <= 0.02 * abs(expected).max()
    assert np.mean(library(x) == expected) >= 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"per_channel": False},
        {"activation_type": "QInt8"},
        {"extra_options": {"ActivationSymmetric": True}, "activation_type": "QInt8"},
        {"weight_type": "QUInt8", "per_channel": False},
        {"extra_options": {"AddQDQPairToWeight": True}},
    ],
    ids=["per_tensor", "int8", "symmetric", "uint8_weights", "float_weights"],
)
def test_every_way_of_quantizing(options, tmp_path):
    path, x = quantized("residual", tmp_path, **options)
    library = compiled(path)
    assert {record.precision for record in library.kernels if record.macs} == {"int8"}
    expected = onnxruntime_run(path, x)
    assert abs(library(x) - expected).max() <= 0.02 * abs(expected).max()


def qlinear_conv(generator, weight_shape, **attributes):
    """A layer on uint8, with the float that it is quantized from: (nodes, constants)."""
    channels = weight_shape[0]
    constants = {
        "xs": np.float32(0.031),
        "xz": np.uint8(117),
        "w": generator.integers(-64, 64, weight_shape).astype(np.int8),
        "ws": generator.uniform(0.001, 0.01, channels).astype(np.float32),
        "wz": np.zeros(channels, np.int8),
        "ys": np.float32(0.043),
        "yz": np.uint8(90),
        "b": generator.integers(-4000, 4000, channels).astype(np.int32),
    }
    inputs = ["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("QLinearConv", inputs, ["yq"], **attributes),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    return nodes, constants


@pytest.mark.parametrize(
    ("shape", "weight_shape", "attributes"),
    [
        ((1, 3, 17, 13), (10, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((2, 5, 9, 9), (7, 5, 3, 3), {"pads": [0, 1, 2, 1], "strides": [2, 1]}),
        ((1, 24, 11, 7), (24, 1, 3, 3), {"pads": [1, 1, 1, 1], "group": 24}),
        ((1, 20, 8, 8), (20, 1, 5, 5), {"pads": [2] * 4, "group": 20, "strides": [2, 2]}),
        ((1, 8, 10, 10), (12, 4, 3, 3), {"group": 2, "dilations": [2, 2]}),
        ((1, 40, 6, 5), (33, 40, 1, 1), {}),
    ],
    ids=["odd", "strides", "depthwise", "depthwise_5x5", "groups", "pointwise"],
)
def test_qlinear_conv_is_equal_bit_for_bit(shape, weight_shape, attributes):
    generator = np.random.default_rng(2)
    model = onnx_models.model(*_swap(qlinear_conv(generator, weight_shape, **attributes), shape))
    x = generator.uniform(-4, 4, shape).astype(np.float32)
    library = compiled(model)
    assert {record.precision for record in library.kernels if record.macs} == {"int8"}
    assert np.array_equal(library(x), onnxruntime_run(model, x))


def _swap(layer, shape):
    nodes, constants = layer
    return nodes, shape, constants


STEPS = {"xs": np.float32(0.02), "xz": np.uint8(120), "ys": np.float32(0.03), "yz": np.uint8(100)}
X, Y = ["xq", "xs", "xz"], ["ys", "yz"]
OPERATORS = {
    "QLinearAdd": (X + X + Y, {}),
    "QLinearMul": (X + X + Y, {}),
    "QLinearConcat": (Y + X + X, {"axis": 1}),
    "QLinearAveragePool": (X + Y, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "QLinearGlobalAveragePool": (X + Y, {}),
    "QLinearSigmoid": (X + Y, {}),
    "QLinearLeakyRelu": (X + Y, {"alpha": 0.1}),
    "QLinearSoftmax": (X + Y, {"axis": -1, "opset": 13}),
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_of_onnx_runtime(operator):
    """Within a step: the order of ONNX Runtime's float operations is its own."""
    inputs, attributes = OPERATORS[operator]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node(operator, inputs, ["yq"], domain="com.microsoft", **attributes),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    model = onnx_models.model(nodes, (1, 5, 7, 6), STEPS)
    x = np.random.default_rng(3).uniform(-3, 3, (1, 5, 7, 6)).astype(np.float32)
    assert abs(compiled(model)(x) - onnxruntime_run(model, x)).max() <= STEPS["ys"] * 1.001


@pytest.mark.parametrize("operator", ["QLinearMatMul", "QGemm"])
def test_dense_layers_are_equal_bit_for_bit(operator):
    generator = np.random.default_rng(4)
    gemm = operator == "QGemm"
    constants = STEPS | {
        "w": generator.integers(-64, 64, (11, 19) if gemm else (19, 11)).astype(np.int8),
        "ws": generator.uniform(0.01, 0.02, 11).astype(np.float32),
        "wz": np.zeros(11, np.int8),
        "b": generator.integers(-900, 900, 11).astype(np.int32),
    }
    inputs = [*X, "w", "ws", "wz", *(["b"] if gemm else []), *Y]
    options = {"domain": "com.microsoft", "transB": 1} if gemm else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node(operator, inputs, ["yq"], **options),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    model = onnx_models.model(nodes, (3, 19), constants)
    x = generator.uniform(-2, 2, (3, 19)).astype(np.float32)
    library = compiled(model)
    assert [record.precision for record in library.kernels if record.macs] == ["int8"]
    assert np.array_equal(library(x), onnxruntime_run(model, x))


def test_integers_keep_their_steps_through_operators_that_move_them():
    """In the QLinear form max pooling and flatten work on integers."""
    nodes, constants = qlinear_conv(np.random.default_rng(5), (8, 3, 3, 3))
    nodes[-1:] = [
        helper.make_node("MaxPool", ["yq"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("DequantizeLinear", ["f", "ys", "yz"], ["y"]),
    ]
    model = onnx_models.model(nodes, (2, 3, 8, 8), constants)
    x = np.random.default_rng(6).uniform(-4, 4, (2, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(compiled(model)(x), onnxruntime_run(model, x))


@pytest.mark.parametrize("quantized", [False, True])
def test_zeros_around_an_image_are_the_padding_of_its_convolution(quantized):
    nodes, constants = qlinear_conv(np.random.default_rng(5), (8, 3, 3, 3))
    constants |= {"p": np.array([0, 0, 1, 0, 0, 0, 2, 1]), "wf": constants["w"] * np.float32(0.01)}
    pad = [
        helper.make_node("Pad", ["x", "p"], ["xp"]),
        helper.make_node("Conv", ["xp", "wf"], ["y"], pads=[0, 1, 0, 1]),
    ]
    if quantized:
        nodes[0].input[0] = "xp"
        pad[1:] = nodes
    model = onnx_models.model(pad, (1, 3, 6, 7), constants)
    module = rq.frontends.from_onnx(model)
    names = [b.value.op.name for b in module["main"].body.blocks[0].bindings]
    assert "relax.nn.pad" not in names
    x = np.random.default_rng(6).uniform(-4, 4, (1, 3, 6, 7)).astype(np.float32)
    difference = abs(rq.compile(module, threads=1)(x) - onnxruntime_run(model, x))
    assert difference.max() <= (0 if quantized else 1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_integers_at_the_interface_stay_what_they_are(dtype):
    nodes, constants = qlinear_conv(np.random.default_rng(5), (8, 3, 3, 3), pads=[1, 1, 1, 1])
    node = nodes[1]
    node.input[0], node.output[0] = "x", "y"
    offset = 128 if dtype == "int8" else 0
    constants |= {k: (constants[k].astype(int) - offset).astype(dtype) for k in ("xz", "yz")}
    integers = getattr(TensorProto, dtype.upper())
    model = onnx_models.model([node], (2, 3, 9, 7), constants, x_type=integers, y_type=integers)
    x = np.random.default_rng(6).integers(0, 256, (2, 3, 9, 7)) - offset
    y = compiled(model)(x.astype(dtype))
    assert str(y.dtype) == dtype
    assert np.array_equal(y, onnxruntime_run(model, x.astype(dtype)))


def test_what_is_imported_is_stock_relax():
    """TVM's own pipeline builds it, in float, and is off by rounding only."""
    nodes, constants = qlinear_conv(np.random.default_rng(5), (8, 3, 3, 3), pads=[1, 1, 1, 1])
    module = rq.frontends.from_onnx(onnx_models.model(nodes, (1, 3, 9, 7), constants))
    x = np.random.default_rng(6).uniform(-4, 4, (1, 3, 9, 7)).astype(np.float32)
    stock, ours = rq.compile(module, executor="naive")(x), rq.compile(module)(x)
    assert abs(stock - ours).max() <= constants["ys"] * 1.001
    assert np.mean(abs(stock - ours) > 1e-5) < 0.01


def test_weights_of_four_bits_are_packed_again():
    """int4 weights (opset 21) come as bytes of few values, which kernels hold packed."""
    generator = np.random.default_rng(7)
    weight = generator.integers(-8, 8, (16, 16, 3, 3)).astype(np.int8)
    nodes, constants = qlinear_conv(generator, weight.shape, pads=[1, 1, 1, 1])
    nodes = [
        nodes[0],
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["yq"]),
        nodes[2],
    ]
    constants = {k: v for k, v in constants.items() if k not in ("w", "b", "wz")}
    wide = onnx_models.model(nodes, (1, 16, 9, 9), constants | {"w": weight})
    narrow = onnx_models.model(nodes, (1, 16, 9, 9), constants)
    tensor = helper.make_tensor("w", TensorProto.INT4, weight.shape, weight.reshape(-1).tolist())
    narrow.graph.initializer.append(tensor)
    x = generator.uniform(-4, 4, (1, 16, 9, 9)).astype(np.float32)
    library = compiled(narrow)
    assert [r.weight_bits for r in library.kernels if r.macs] == [4]
    assert np.array_equal(library(x), onnxruntime_run(wide, x))


def test_a_batch_left_open_stays_open_and_shapes_close_it():
    node = helper.make_node("Relu", ["x"], ["y"])
    model = onnx_models.model([node], ("n", 3, "h", 4), {})
    module = rq.frontends.from_onnx(model, shapes={"x": (2, 3, 5, 4)})
    x = np.random.default_rng(8).standard_normal((2, 3, 5, 4), np.float32)
    assert np.array_equal(rq.compile(module)(x), np.maximum(x, 0))
    model = onnx_models.model([node], ("n", 3, 5, 4), {})
    assert np.array_equal(rq.compile(rq.frontends.from_onnx(model), batch=2)(x), np.maximum(x, 0))


def test_the_model_that_was_given_is_not_changed():
    nodes, constants = qlinear_conv(np.random.default_rng(9), (8, 3, 3, 3))
    model = onnx_models.model(nodes, (1, 3, 5, 5), constants)
    before = model.SerializeToString()
    rq.frontends.from_onnx(model)
    assert model.SerializeToString() == before


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(rq.ModelError, match=r"no ONNX file .*gone\.onnx"):
        rq.frontends.from_onnx(tmp_path / "gone.onnx")
    with pytest.raises(rq.ModelError, match=r"a path or an onnx\.ModelProto, got int"):
        rq.frontends.from_onnx(3)
    nodes, constants = qlinear_conv(np.random.default_rng(9), (8, 3, 3, 3))
    data = onnx_models.model(nodes, (1, 3, 5, 5), constants).SerializeToString()
    for content in (data[: len(data) // 2], b"no protobuf", b""):
        path = tmp_path / "broken.onnx"
        path.write_bytes(content)
        with pytest.raises(rq.ModelError, match=r"broken\.onnx .*cut off"):
            rq.frontends.from_onnx(path)


def one_node(operator: str, outputs=("y",), **options):
    return onnx_models.model(
        [helper.make_node(operator, ["x"], outputs, name="it", **options)], (1, 4), {}
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: one_node("Unheard"), "Unheard 'it'.*replace that operator"),
        (lambda: one_node("MatMulNBits", domain="com.microsoft"), r"com\.microsoft\.MatMulNBits"),
        (lambda: one_node("DynamicQuantizeLinear", ("y", "s", "z")), "'it'.*at run time.*static"),
        (lambda: one_node("Flatten", axis=7), r"Flatten 'it' \(Flatten axis 7 is out of range"),
        (
            lambda: onnx_models.model(
                [helper.make_node("Relu", ["x"], ["y"])], (1, 4), {}, x_type=TensorProto.FLOAT16
            ),
            "'x' is float16.*float32",
        ),
    ],
    ids=["unknown", "contrib", "dynamic", "attribute", "float16"],
)
def test_models_that_cannot_be_imported_are_one_error(model, message):
    with pytest.raises(rq.ModelError, match=message):
        rq.frontends.from_onnx(model())


def test_the_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(rq.ModelError, match="onnx, which is not installed: pip install onnx"):
        rq.frontends.from_onnx("model.onnx")


def test_control_flow_is_one_error():
    true, branches = np.array(True), []
    for name, operator in (("then", "Relu"), ("else", "Neg")):
        node, output = (
            helper.make_node(operator, ["x"], [name]),
            helper.make_empty_tensor_value_info,
        )
        branches.append(helper.make_graph([node], name, [], [output(name)]))
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    model = onnx_models.model([node], (1, 4), {"c": true})
    with pytest.raises(rq.ModelError, match=r"control flow.*the branch that is taken"):
        rq.frontends.from_onnx(model)


def test_types_without_kernels_stay_float():
    """Activations of uint16: the network computes what it should, by TVM's own operators."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["y"]),
    ]
    generator = np.random.default_rng(10)
    constants = {"s": np.float32(1e-4), "z": np.uint16(30000)}
    constants["w"] = generator.standard_normal((4, 3, 3, 3), np.float32)
    model = onnx_models.model(nodes, (1, 3, 6, 6), constants)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 21))
    x = generator.uniform(-2, 2, (1, 3, 6, 6)).astype(np.float32)
    library = compiled(model)
    assert [record.reason for record in library.kernels if record.op == "quantize"] == [
        "quantize to uint16"
    ]
    assert abs(library(x) - onnxruntime_run(model, x)).max() < 1e-4


def test_shapes_of_inputs_that_are_not_there():
    with pytest.raises(rq.InputError, match=r"no input 'z' \(there are: x\)"):
        rq.frontends.from_onnx(one_node("Relu"), shapes={"z": (1, 4)})
    with pytest.raises(rq.InputError, match="'x' has 2 dimensions, not 3"):
        rq.frontends.from_onnx(one_node("Relu"), shapes={"x": (1, 4, 4)})
