"""What lib.memory counts, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import relaxquant as rq
from relaxquant.executors.accounting import MemoryUse


class TwoLayers(nn.Module):
    """3 -> 20 channels at 8x8, then 20 -> 5, without bias or activation."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 20, 3, padding=1)
        self.second = nn.Conv2d(20, 5, 1)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return rq.frontends.from_torch(TwoLayers().eval(), torch.randn(2, 3, 8, 8))


@pytest.fixture(scope="module")
def quantized(module):
    return rq.quantize(module, rq.QConfig.best(), calibration=[torch.randn(2, 3, 8, 8).numpy()])


def test_fp32_by_hand(module):
    memory = rq.compile(module).memory
    # Channels are padded to whole sixteens: 20 to 32, 5 to 16; the image stays plain.
    weights = 32 * 3 * 9 + 16 * 32
    biases = 32 + 16
    bounds = 3 * 3  # two convolutions, and the conversion of the output to NCHW
    assert memory.weights == {"float32": 4 * (weights + biases + bounds)}
    assert memory.weight_bytes == memory.weights["float32"]
    # 20 channels in 32, 8x8; 5 in 16, 8x8: both are alive while the second is computed.
    assert memory.activations == 4 * 2 * 64 * (32 + 16)


def test_int8_by_hand(quantized):
    memory = rq.compile(quantized).memory
    channels = 32 + 16
    border = 3 * 4 * 32  # padded taps of the first layer count as its zero point
    bounds = 4 * 3  # two convolutions, and a conversion at either end
    assert memory.weights == {
        "int8": 32 * 4 * 9 + 16 * 32,  # the image lies in fours, as a dot product takes channels
        "int32": 4 * (channels + border),
        "float32": 4 * (channels + bounds),
    }
    assert memory.weight_bytes == sum(memory.weights.values())
    # The image in fours and the first layer in uint8, the second in float32.
    assert memory.activations == 2 * 64 * (4 + 32 + 4 * 16)


def test_a_constant_that_is_used_twice_counts_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x))

    module = rq.frontends.from_torch(Twice().eval(), torch.randn(1, 16, 6, 6))
    naive = rq.compile(module, executor="naive").memory
    # The weights once; each call has a reshaped bias of its own.
    assert naive.weights == {"float32": 4 * (16 * 16 * 9 + 2 * 16)}


def test_without_planning_there_is_nothing_planned(module):
    for executor in ("vm", "naive"):
        assert rq.compile(module, executor=executor).memory.activations is None


def test_a_loaded_library_still_knows(module, tmp_path):
    library = rq.compile(module)
    loaded = rq.load(library.export(tmp_path / "net.so"))
    assert isinstance(loaded.memory, MemoryUse)
    assert loaded.memory == library.memory
