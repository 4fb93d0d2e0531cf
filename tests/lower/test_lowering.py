"""Lowering: what is fused, in which layout, and that integers agree with the QDQ graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import relaxquant as rq
from relaxquant.measure import signal_to_noise
from tests.networks import NETWORKS, make

HAS_AVX2 = "avx2" in rq.target.features(rq.target.resolve("native"))
needs_avx2 = pytest.mark.skipif(not HAS_AVX2, reason="runs AVX2 code, which this CPU has not")


def quantized(network, x, **config):
    """(fp32 module, QDQ module), calibrated on three batches around ``x``."""
    module = rq.frontends.from_torch(network, x)
    generator = torch.Generator().manual_seed(1)
    noise = [torch.randn(x.shape, generator=generator) for _ in range(2)]
    batches = [batch.numpy() for batch in (x, *noise)]
    return module, rq.quantize(module, rq.QConfig.best(**config), calibration=batches)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_integers_agree_with_the_qdq_graph(name, granularity):
    """The integer network is closer to the float run of QDQ than quantization itself moved it."""
    network, x = make(name)
    module, qmodule = quantized(network, x, weight_granularity=granularity)
    fp32 = rq.compile(module)(x)
    simulated = rq.compile(qmodule, executor="naive")(x)
    integer = rq.compile(qmodule)(x)
    assert signal_to_noise(simulated, integer) > signal_to_noise(fp32, simulated) + 6
    assert signal_to_noise(fp32, integer) > 15


@pytest.mark.parametrize("size", [8, 4, 3])
def test_adaptive_pooling_becomes_windows_where_sizes_divide(size):
    """VGG's, to the size that the image has already, among them; 3 of 8 stays with TVM."""
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d((size, size))
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), pool, nn.Conv2d(16, 8, 1))
    module, qmodule = quantized(network.eval(), torch.randn(2, 3, 8, 8))
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)
    library = rq.compile(qmodule)
    assert signal_to_noise(rq.compile(module)(x), library(x)) > 15
    ours = [record.schedule for record in library.kernels if "pool" in record.op]
    assert ours == (["tvm default"] if size == 3 else ["nchwc_elementwise"])


@pytest.mark.parametrize("target", [pytest.param("znver3", marks=needs_avx2), "generic"])
def test_every_target_gives_the_same_integers(target):
    """Instruction sets differ in speed and in nothing else: outputs are equal bit for bit."""
    network, x = make("residual")
    _, qmodule = quantized(network, x)
    expected = rq.compile(qmodule)(x)
    np.testing.assert_array_equal(rq.compile(qmodule, target=target)(x), expected)


@needs_avx2
def test_full_range_weights_are_exact_on_avx2():
    """Without the reduced range vpmaddubsw could saturate: another instruction must be taken."""
    network, x = make("residual")
    _, qmodule = quantized(network, x, reduce_range=False)
    library = rq.compile(qmodule, target="znver3")
    taken = {r.instructions for r in library.kernels.where(op="conv2d")}
    assert "vpmaddwd" in taken
    np.testing.assert_array_equal(library(x), rq.compile(qmodule, target="generic")(x))


def test_every_executor_gives_the_same_integers():
    network, x = make("inverted_residual")
    _, qmodule = quantized(network, x)
    graph, machine = rq.compile(qmodule), rq.compile(qmodule, executor="vm")
    np.testing.assert_array_equal(graph(x), machine(x))


def test_residual_network_is_integer_and_fused():
    network, x = make("residual")
    _, qmodule = quantized(network, x)
    kernels = rq.compile(qmodule).kernels
    assert [(r.op, r.precision) for r in kernels] == [
        ("quantize", "int8"),
        ("conv2d", "int8"),
        ("max_pool2d", "int8"),
        ("conv2d", "int8"),
        ("conv2d", "int8"),
        ("conv2d", "int8"),
        ("avg_pool2d", "int8"),
        ("dense", "int8"),
        ("convert", "fp32"),  # logits out of NCHW16c
    ]
    assert [r.layout for r in kernels][:3] == ["NCHW", "NHWC, padded", "NCHW16c"]


def test_skipped_layers_stay_float_and_are_listed():
    network, x = make("residual")
    _, qmodule = quantized(network, x, skip_conv_layers=(0,), skip_dense_layer=True)
    kernels = rq.compile(qmodule).kernels
    heavy = [r for r in kernels if r.macs]
    assert [r.precision for r in heavy] == ["fp32", "int8", "int8", "int8", "fp32"]
    assert heavy[0].reason == heavy[-1].reason == "not quantized"
    assert "fp32" not in {r.precision for r in kernels.where(op="max_pool2d")}


def test_equal_layers_share_one_kernel():
    network = nn.Sequential(*[nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)])
    kernels = rq.compile(rq.frontends.from_torch(network, torch.randn(1, 16, 8, 8))).kernels
    assert len({r.name for r in kernels.where(op="conv2d")}) == 1


def test_an_unsupported_operator_stays_float_between_integers():
    class Gelu(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)

        def forward(self, x):
            return self.last(F.gelu(self.first(x)))

    torch.manual_seed(0)
    x = torch.randn(1, 3, 10, 10)
    network = Gelu().eval()
    module, qmodule = quantized(network, x)
    library = rq.compile(qmodule)
    left = library.kernels.where(schedule="tvm default")
    assert [(r.op, r.reason) for r in left] == [("nn.gelu", "no kernel for relax.nn.gelu")]
    assert {r.precision for r in library.kernels.where(op="conv2d")} == {"int8"}
    assert signal_to_noise(rq.compile(module)(x), library(x)) > 20


def test_two_convolutions_into_one_add_fuse_the_later_one():
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            return F.relu(self.a(x) + self.b(x))

    network, x = Twins().eval(), torch.randn(1, 16, 6, 6)
    kernels = rq.compile(rq.frontends.from_torch(network, x)).kernels
    assert [r.op for r in kernels if r.op != "convert"] == ["conv2d", "conv2d"]


def test_a_value_with_two_readers_is_not_fused_away():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(16, 16, 1)

        def forward(self, x):
            y = self.a(x)
            return F.relu(y) + y

    network, x = Shared().eval(), torch.randn(1, 16, 6, 6)
    found = rq.compile(rq.frontends.from_torch(network, x))(x)
    assert abs(found - network(x).detach().numpy()).max() < 1e-5


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
def test_pooling_agrees_with_torch(pool, ceil_mode):
    arguments = {"count_include_pad": False} if pool is nn.AvgPool2d else {}
    network = pool(3, 2, 1, ceil_mode=ceil_mode, **arguments)
    x = torch.randn(1, 5, 10, 12)
    found = rq.compile(rq.frontends.from_torch(network, x))(x)
    np.testing.assert_allclose(found, network(x).numpy(), rtol=1e-5, atol=1e-6)


def test_a_module_without_main_is_one_error():
    import tvm

    with pytest.raises(rq.ModelError, match="no function 'main'"):
        rq.compile(tvm.IRModule({}))
