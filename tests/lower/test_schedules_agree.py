"""Whatever schedule is asked for, a quantized network computes the same integers."""

from __future__ import annotations

import numpy as np
import pytest

import relaxquant as rq
from relaxquant.kernels import schedule_names
from tests.networks import make


@pytest.fixture(scope="module")
def quantized():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    module = rq.quantize(module, rq.QConfig.best(), calibration=[x.numpy()])
    return module, x, rq.compile(module, threads=1, schedule="reference")(x)


@pytest.mark.parametrize("schedule", [name for name in schedule_names() if name != "reference"])
def test_to_the_bit(quantized, schedule):
    module, x, expected = quantized
    np.testing.assert_array_equal(rq.compile(module, threads=1, schedule=schedule)(x), expected)
