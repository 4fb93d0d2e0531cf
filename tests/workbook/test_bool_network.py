"""A network in bool: blind with ordinary weights, and not where zeros carry the information."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.networks import make
from workbook.bool_network import run_in_bool


def test_an_ordinary_network_gives_one_output_for_all_images():
    network, _ = make("residual")
    images = np.random.default_rng(0).standard_normal((20, 3, 32, 32), np.float32)
    before = network(torch.from_numpy(images)).detach().numpy()
    found = run_in_bool(SimpleNamespace(model=network), images)
    assert (found.images, found.distinct) == (20, 1)
    assert len(found.true_share) == 5  # four convolutions and a dense layer
    # The network itself sees a difference, and is left as it was.
    assert len(np.unique(before, axis=0)) == 20
    np.testing.assert_array_equal(network(torch.from_numpy(images)).detach().numpy(), before)


@pytest.fixture
def counter():
    """One output: the bools of four pixels, added."""
    network = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.Flatten())
    nn.init.ones_(network[0].weight)
    return SimpleNamespace(model=network.eval())


def test_zeros_are_all_that_bools_can_tell(counter):
    images = np.zeros((4, 1, 2, 2), np.float32)
    images[1, 0, 0, 0], images[2] = -3, 7
    images[3, 0, 0] = 5
    assert run_in_bool(counter, images).distinct == 2  # nothing there, or something
    assert run_in_bool(counter, images).true_share == [pytest.approx((1 + 4 + 2) / 16)]
    # Of one, four and two products only the first is odd.
    assert run_in_bool(counter, images, "exclusive or").distinct == 2
    assert run_in_bool(counter, images[[0, 2, 3]], "exclusive or").distinct == 1
