"""What stock TVM multiplies, read from its legalized TIR."""

from __future__ import annotations

import pytest

import relaxquant as rq
from relaxquant import inspect
from tests.networks import make


@pytest.fixture(scope="module")
def modules():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    return module, rq.quantize(module, rq.QConfig.best(), calibration=[x.numpy()])


def test_stock_tvm_multiplies_floats_in_a_quantized_network(modules):
    for module in modules:
        operands = inspect.operand_dtypes(module)
        assert [o.function.rstrip("0123456789") for o in operands] == ["conv2d"] * 4 + ["matmul"]
        assert {(o.data, o.weight, o.output) for o in operands} == {("float32",) * 3}


def test_an_integer_convolution_is_recognised():
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 4, 6, 6), "uint8"))
    w = relax.Var("w", relax.TensorType((4, 4, 3, 3), "int8"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.nn.conv2d(x, w, out_dtype="int32"))
        builder.emit_func_output(y)
    (operands,) = inspect.operand_dtypes(builder.get())
    assert (operands.data, operands.weight, operands.output) == ("uint8", "int8", "int32")
    assert operands.integer


def test_excerpt_shows_the_dequantized_operands(modules):
    text = inspect.excerpt(modules[1], index=1)
    lines = text.splitlines()
    assert sum("R.nn.conv2d(" in line for line in lines) == 1
    assert sum("R.dequantize(" in line for line in lines) == 2
    assert "kernel_layout" not in text


def test_excerpt_of_an_operator_that_is_not_there(modules):
    with pytest.raises(rq.InputError, match="main has 4 calls of R"):
        inspect.excerpt(modules[1], index=4)
