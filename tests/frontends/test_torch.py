"""from_torch: what it gives agrees with torch, and what it cannot take is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import relaxquant as rq
from tests.networks import NETWORKS, make


def operators(module) -> list[str]:
    bindings = module["main"].body.blocks[0].bindings
    return [b.value.op.name for b in bindings if hasattr(b.value, "op")]


@pytest.mark.parametrize("name", NETWORKS)
def test_import_agrees_with_torch(name):
    network, x = make(name)
    module = rq.frontends.from_torch(network, x)
    library = rq.compile(module, executor="vm")
    with torch.no_grad():
        expected = network(x).numpy()
    assert abs(library(x) - expected).max() <= 1e-4 * abs(expected).max()


@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm_is_folded(bias):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=bias), nn.BatchNorm2d(8))
    network[1].running_mean.uniform_()
    network[1].running_var.uniform_(0.5, 2)
    nn.init.uniform_(network[1].weight, 0.5, 2)
    x = torch.randn(1, 3, 9, 9)
    module = rq.frontends.from_torch(network, x)
    assert operators(module) == ["relax.nn.conv2d", "relax.add"]
    expected = network.eval()(x).detach().numpy()
    assert abs(rq.compile(module)(x) - expected).max() < 1e-5


def test_training_mode_is_left_alone_and_dropout_disappears():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Dropout(0.5)).train()
    module = rq.frontends.from_torch(network, torch.randn(2, 3, 2, 2))
    assert network.training
    assert operators(module) == ["relax.reshape", "relax.matmul", "relax.add"]


def test_dynamic_batch_is_symbolic_even_from_an_example_of_one():
    network, x = make("residual", batch=1)
    module = rq.frontends.from_torch(network, x, dynamic_batch=True)
    library = rq.compile(module, executor="vm")
    x = torch.randn(3, *x.shape[1:])
    assert abs(library(x) - network(x).detach().numpy()).max() < 1e-4


def test_a_model_torch_cannot_export_is_one_error():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(rq.ModelError, match=r"cannot trace Branching .*\(1, 3\)"):
        rq.frontends.from_torch(Branching(), torch.randn(1, 3))


def test_an_operator_tvm_cannot_import_is_named():
    class Unusual(nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x)

    with pytest.raises(rq.ModelError, match="svd"):
        rq.frontends.from_torch(Unusual(), torch.randn(3, 3))


def test_something_else_than_a_module_is_refused():
    with pytest.raises(rq.ModelError, match="Module, got dict"):
        rq.frontends.from_torch({}, torch.randn(1))
