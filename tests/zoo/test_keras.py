"""Keras weights on torchvision's modules, against the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from relaxquant.zoo import ZooError
from relaxquant.zoo._torchvision import import_torchvision
from relaxquant.zoo.keras import (
    _bottleneck_names,
    as_keras_resnet50,
    read_keras_h5,
    resnet50_state,
    squeezenet_state,
)
from relaxquant.zoo.statedict import fit


@pytest.fixture(scope="module")
def plain_resnet50():
    return import_torchvision().models.resnet50(weights=None)


@pytest.fixture(scope="module")
def keras_resnet50(plain_resnet50) -> dict[str, np.ndarray]:
    """Random weights named and laid out as Keras does, shapes read off torchvision's model."""
    rng = np.random.default_rng(0)
    shapes = {name: tuple(p.shape) for name, p in plain_resnet50.named_parameters()}
    weights = {
        "fc1000/kernel": rng.standard_normal((2048, 1000), np.float32),
        "fc1000/bias": rng.standard_normal(1000, np.float32),
    }
    for conv, norm, ours, _ in [("conv1", "bn_conv1", "conv1", "bn1"), *_bottleneck_names()]:
        out, into, height, width = shapes[f"{ours}.weight"]
        weights[f"{conv}/kernel"] = rng.standard_normal((height, width, into, out), np.float32)
        for leaf in (f"{conv}/bias", *(f"{norm}/{k}" for k in ("gamma", "beta", "moving_mean"))):
            weights[leaf] = rng.standard_normal(out, np.float32)
        weights[f"{norm}/moving_variance"] = rng.uniform(0.5, 2, out).astype(np.float32)
    return weights


def test_every_weight_of_resnet50_finds_its_place(keras_resnet50, plain_resnet50):
    assert len(keras_resnet50) == 320  # 53 convolutions, 53 batch norms, 1 dense
    fit(plain_resnet50, resnet50_state(keras_resnet50), "resnet50", "test")
    np.testing.assert_array_equal(
        plain_resnet50.layer3[5].conv3.weight[7, 11, 0, 0].item(),
        keras_resnet50["res4f_branch2c/kernel"][0, 0, 11, 7],
    )
    np.testing.assert_array_equal(
        plain_resnet50.fc.weight[3].detach(), keras_resnet50["fc1000/kernel"][:, 3]
    )


@pytest.mark.parametrize(("keras", "ours"), [("2a_branch1", "layer1.0.downsample")])
def test_biased_convolution_and_batch_norm_compute_what_keras_does(
    keras_resnet50, plain_resnet50, keras, ours
):
    model = fit(plain_resnet50, resnet50_state(keras_resnet50), "resnet50", "test")
    block = as_keras_resnet50(model).eval().get_submodule(ours)
    x = torch.randn(1, 64, 5, 5, generator=torch.Generator().manual_seed(0))
    kernel = torch.from_numpy(keras_resnet50[f"res{keras}/kernel"].transpose(3, 2, 0, 1).copy())
    y = F.conv2d(x, kernel, torch.from_numpy(keras_resnet50[f"res{keras}/bias"]))
    gamma, beta, mean, variance = (
        torch.from_numpy(keras_resnet50[f"bn{keras}/{leaf}"]).reshape(1, -1, 1, 1)
        for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    expected = gamma * (y - mean) / torch.sqrt(variance + 1e-3) + beta
    torch.testing.assert_close(block(x).detach(), expected, rtol=1e-4, atol=1e-4)


def test_the_stride_moves_to_the_first_1x1(plain_resnet50):
    model = as_keras_resnet50(plain_resnet50)
    for stage in (model.layer2, model.layer3, model.layer4):
        assert stage[0].conv1.stride == (2, 2)
        assert stage[0].conv2.stride == (1, 1)
        assert stage[0].downsample[0].stride == (2, 2)
    assert model.layer1[0].conv1.stride == (1, 1)


def test_every_weight_of_squeezenet_finds_its_place():
    model = import_torchvision().models.squeezenet1_1(weights=None)
    rng = np.random.default_rng(0)
    places = {"conv1": "features.0", "conv10": "classifier.1"}
    for fire, i in enumerate((3, 4, 6, 7, 9, 10, 11, 12), start=2):
        places[f"fire{fire}/squeeze1x1"] = f"features.{i}.squeeze"
        places[f"fire{fire}/expand1x1"] = f"features.{i}.expand1x1"
        places[f"fire{fire}/expand3x3"] = f"features.{i}.expand3x3"
    weights = {}
    for layer, place in places.items():
        out, into, height, width = model.get_submodule(place).weight.shape
        weights[f"{layer}/kernel"] = rng.standard_normal((height, width, into, out), np.float32)
        weights[f"{layer}/bias"] = rng.standard_normal(out, np.float32)
    fit(model, squeezenet_state(weights), "squeezenet1_1", "test")
    got = model.features[12].expand3x3.weight.detach().numpy()
    np.testing.assert_array_equal(got, weights["fire9/expand3x3/kernel"].transpose(3, 2, 0, 1))


@pytest.mark.parametrize("state", [resnet50_state, squeezenet_state])
def test_a_missing_weight_is_named(state):
    with pytest.raises(ZooError, match="weight 'conv1/"):
        state({})


def test_keras_hdf5_is_read_back(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py reads Keras HDF5 files")
    path = tmp_path / "net.h5"
    kernel = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"pool", b"fire2/squeeze1x1"]
        file.create_group("pool").attrs["weight_names"] = np.array([], "S1")
        group = file.create_group("fire2/squeeze1x1")
        group.attrs["weight_names"] = [b"fire2/squeeze1x1_W:0"]
        group["fire2/squeeze1x1_W:0"] = kernel
    got = read_keras_h5(path)
    assert list(got) == ["fire2/squeeze1x1/kernel"]
    np.testing.assert_array_equal(got["fire2/squeeze1x1/kernel"], kernel)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ZooError, match="no readable Keras weight file"):
        read_keras_h5(path)


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ZooError, match="pip install h5py"):
        read_keras_h5(tmp_path / "net.h5")
