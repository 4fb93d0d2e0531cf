"""A tiny network in the place of the zoo's, with its materials."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from relaxquant import zoo
from workbook.peers import materials
from workbook.peers.job import Job


class Net:
    """What the benchmark asks of a `relaxquant.zoo.Network`."""

    weights, trained = "random (untrained)", False

    def __init__(self):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
        self.model = nn.Sequential(*layers).eval().requires_grad_(False)

    def example_input(self, batch=1, seed=0):
        return torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


class Pictures:
    source = "noise"

    def __init__(self, count, seed):
        generator = np.random.default_rng(seed)
        self.x = generator.standard_normal((count, 3, 16, 16), dtype=np.float32)

    def __len__(self):
        return len(self.x)


@pytest.fixture(scope="module")
def _zoo(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAXQUANT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(zoo, "load_model", lambda name, weights=None: Net(), raising=False)
        patch.setattr(zoo, "calibration_images", lambda *_: Pictures(8, 1), raising=False)
        patch.setattr(zoo, "evaluation_images", lambda *_: Pictures(7, 2), raising=False)
        yield


@pytest.fixture(scope="module")
def made(_zoo):
    """Return the tiny network's materials."""
    return materials.make("tiny")


@pytest.fixture
def job(made):
    """Return a function that makes a job on the tiny network."""

    def build(peer, precision, **changes):
        plain = asdict(Job(f"{peer} {precision}", peer, precision, "tiny", folder=made.folder))
        return Job(**(plain | changes))

    return build
