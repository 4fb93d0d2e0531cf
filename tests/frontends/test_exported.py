"""from_exported_program: PT2E programs agree with PyTorch, and errors name the thing."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import relaxquant as rq
from relaxquant.measure import signal_to_noise
from tests.networks import NETWORKS, make

CLOSE = 40  # dB; a network is quantized to 20 or 30
torchao = pytest.importorskip("torchao", reason="what quantizes exported programs (PT2E)")


@pytest.fixture(autouse=True)
def quiet():
    """torch and torchao warn of their own deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def converted(network: nn.Module, x: torch.Tensor, fold: bool = True, **configuration):
    """The network as PT2E quantizes it for x86, a graph module."""
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    with torch.no_grad():
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config(**configuration))
        prepared = prepare_pt2e(torch.export.export(network, (x,)).module(), quantizer)
        generator = torch.Generator().manual_seed(1)
        for batch in (x, torch.randn(x.shape, generator=generator)):
            prepared(batch)
        module = convert_pt2e(prepared, fold_quantize=fold)
    move_exported_model_to_eval(module)
    return module


def imported(module: nn.Module, x: torch.Tensor, **dynamic):
    """(Relax, what PyTorch computes)."""
    with torch.no_grad():
        program = torch.export.export(module, (x,), **dynamic)
        return rq.frontends.from_exported_program(program), module(x).numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_float_programs_agree(name):
    network, x = make(name)
    module, expected = imported(network, x)
    assert abs(rq.compile(module)(x) - expected).max() <= 1e-4 * abs(expected).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_quantized_programs_agree(name):
    """All layers multiply integers; what differs are biases, here in steps of the sums."""
    network, x = make(name)
    module, expected = imported(converted(network, x), x)
    library = rq.compile(module, threads=1)
    assert {record.precision for record in library.kernels if record.macs} == {"int8"}
    assert signal_to_noise(expected, library(x)) > CLOSE


def test_a_reduced_range_is_seven_bits():
    network, x = make("flatten_dense")
    module, expected = imported(converted(network, x, reduce_range=True), x)
    library = rq.compile(module, threads=1)
    assert {r.activation_bits for r in library.kernels if r.macs} == {7}
    assert signal_to_noise(expected, library(x)) > CLOSE


def test_weights_that_were_not_folded_are_folded_here():
    network, x = make("residual")
    module, expected = imported(converted(network, x, fold=False), x)
    library = rq.compile(module, threads=1)
    assert {record.precision for record in library.kernels if record.macs} == {"int8"}
    assert signal_to_noise(expected, library(x)) > CLOSE


def test_layers_store_integers_where_a_pooling_follows():
    """PT2E quantizes after the pooling, which on integers chooses the same values."""
    network, x = make("flatten_dense")
    module, _ = imported(converted(network, x), x)
    (pooling,) = rq.compile(module).kernels.where(op="max_pool2d")
    assert pooling.precision == "int8"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(5, 7, 3, stride=(2, 1), padding=(0, 2)), (2, 5, 9, 10)),
        (nn.Conv2d(24, 24, 3, padding=1, groups=24), (1, 24, 7, 11)),
        (nn.Conv2d(8, 12, 3, dilation=2, groups=2, bias=False), (1, 8, 9, 9)),
        (nn.Linear(19, 11, bias=False), (3, 19)),
    ],
    ids=["strides", "depthwise", "groups", "dense"],
)
def test_layers_of_every_shape(layer, shape):
    torch.manual_seed(0)
    x = torch.randn(shape) + 0.7
    module, expected = imported(converted(nn.Sequential(layer, nn.Sigmoid()).eval(), x), x)
    library = rq.compile(module, threads=1)
    assert [record.precision for record in library.kernels if record.macs] == ["int8"]
    assert signal_to_noise(expected, library(x)) > CLOSE


def test_an_open_batch_stays_open():
    network, x = make("residual", batch=2)
    batch = torch.export.Dim("batch", min=1)
    module, expected = imported(network, x, dynamic_shapes=({0: batch},))
    assert abs(rq.compile(module, batch=2)(x) - expected).max() < 1e-4


def program_of(operators, x=None):
    """The program of one function of a tensor."""

    class Module(nn.Module):
        def forward(self, x):
            return operators(x)

    return torch.export.export(Module(), (torch.randn(2, 3) if x is None else x,))


quantized = torch.ops.quantized_decomposed


def dynamic(x):
    scale, zero = quantized.choose_qparams.tensor(x, 0, 255, 1e-5, torch.uint8)
    codes = quantized.quantize_per_tensor.tensor(x, scale, zero, 0, 255, torch.uint8)
    return quantized.dequantize_per_tensor.tensor(codes, scale, zero, 0, 255, torch.uint8)


def wide(x):
    codes = quantized.quantize_per_tensor(x, 0.1, 0, -(2**31), 2**31 - 1, torch.int32)
    return quantized.dequantize_per_tensor(codes, 0.1, 0, -(2**31), 2**31 - 1, torch.int32)


@pytest.mark.parametrize(
    ("operators", "message"),
    [
        (dynamic, r"choose_qparams \(choose_qparams\.tensor\).*dynamic.*static"),
        (wide, r"quantize_per_tensor .*quantizes to int32.*int8, uint8, int16"),
        (lambda x: torch.linalg.svdvals(x), "svd.*replace that operator"),
    ],
    ids=["dynamic", "int32", "unknown"],
)
def test_programs_that_cannot_be_imported_are_one_error(operators, message):
    with pytest.raises(rq.ModelError, match=message):
        rq.frontends.from_exported_program(program_of(operators))


def test_something_else_than_a_program_is_refused():
    with pytest.raises(rq.ModelError, match=r"ExportedProgram, got ReLU: torch\.export\.export"):
        rq.frontends.from_exported_program(nn.ReLU())


def test_part_of_a_range_is_a_clip():
    def narrow(x):
        codes = quantized.quantize_per_tensor(x, 0.1, 3, 0, 15, torch.uint8)
        return quantized.dequantize_per_tensor(codes, 0.1, 3, 0, 15, torch.uint8)

    x = torch.linspace(-2, 2, 64).reshape(1, 4, 4, 4)
    module = rq.frontends.from_exported_program(program_of(narrow, x))
    values = np.unique(rq.compile(module)(x))
    assert np.allclose(values, 0.1 * (np.arange(16) - 3), atol=1e-6)


def test_zero_points_of_channels_may_be_left_out():
    weight, scale = torch.randint(-127, 128, (6, 4, 3, 3), dtype=torch.int8), torch.rand(6) / 99

    def conv(x):
        codes = quantized.quantize_per_tensor(x, 0.02, 120, 0, 255, torch.uint8)
        x = quantized.dequantize_per_tensor(codes, 0.02, 120, 0, 255, torch.uint8)
        w = quantized.dequantize_per_channel(weight, scale, None, 0, -127, 127, torch.int8)
        return nn.functional.conv2d(x, w)

    x = torch.randn(1, 4, 7, 7)
    library = rq.compile(rq.frontends.from_exported_program(program_of(conv, x)))
    assert [record.precision for record in library.kernels if record.macs] == ["int8"]
    assert signal_to_noise(conv(x).numpy(), library(x)) > 80
