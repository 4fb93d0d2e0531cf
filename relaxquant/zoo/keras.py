"""Map Keras ImageNet weights onto torchvision's module names and layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import not_installed
from .errors import ZooError

Weights = Mapping[str, np.ndarray]
StateDict = dict[str, torch.Tensor]

# keras.applications' old ResNet-50 normalises with Keras' default epsilon, torchvision with 1e-5.
KERAS_BN_EPSILON = 1e-3


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float32, order="C"))  # owned: torch writes to it


def _oihw(kernel: np.ndarray) -> torch.Tensor:
    return _tensor(kernel.transpose(3, 2, 0, 1))


def resnet50_state(keras: Weights) -> StateDict:
    """Return torchvision's resnet50 state dict from Keras' ResNet-50 (2015 layout).

    Keras' convolutions carry a bias before the batch norm; it is folded into the running mean:
    ``(conv + bias) - mean = conv - (mean - bias)``.

    Parameters
    ----------
    keras : Mapping[str, numpy.ndarray]
        Weights named ``conv1/kernel``, ``res2a_branch2a/bias``, ``bn2a_branch1/gamma``, ...;
        kernels are HWIO, the dense kernel is (in, out).

    Raises
    ------
    ZooError
        If a weight is missing.
    """
    state: StateDict = {}
    pairs = [("conv1", "bn_conv1", "conv1", "bn1"), *_bottleneck_names()]
    try:
        for keras_conv, keras_bn, conv, bn in pairs:
            bias = keras[f"{keras_conv}/bias"]
            state[f"{conv}.weight"] = _oihw(keras[f"{keras_conv}/kernel"])
            state[f"{bn}.weight"] = _tensor(keras[f"{keras_bn}/gamma"])
            state[f"{bn}.bias"] = _tensor(keras[f"{keras_bn}/beta"])
            state[f"{bn}.running_mean"] = _tensor(keras[f"{keras_bn}/moving_mean"] - bias)
            state[f"{bn}.running_var"] = _tensor(keras[f"{keras_bn}/moving_variance"])
        state["fc.weight"] = _tensor(keras["fc1000/kernel"].T)
        state["fc.bias"] = _tensor(keras["fc1000/bias"])
    except KeyError as error:
        raise ZooError(f"this is no Keras ResNet-50: weight {error} is missing") from error
    return state


def _bottleneck_names() -> list[tuple[str, str, str, str]]:
    """Return (Keras conv, Keras batch norm, torchvision conv, torchvision batch norm) names."""
    names = []
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            keras = f"{stage + 1}{'abcdef'[block]}"
            here = f"layer{stage}.{block}"
            for i, branch in enumerate("abc", start=1):
                source = f"{keras}_branch2{branch}"
                names.append((f"res{source}", f"bn{source}", f"{here}.conv{i}", f"{here}.bn{i}"))
            if block == 0:
                source, down = f"{keras}_branch1", f"{here}.downsample"
                names.append((f"res{source}", f"bn{source}", f"{down}.0", f"{down}.1"))
    return names


def as_keras_resnet50(model: nn.Module) -> nn.Module:
    """Turn torchvision's resnet50 into Keras' variant, in place, and return it.

    A stage's stride is on its first 1x1 convolution (the original ResNet, arXiv 1512.03385), where
    torchvision has it on the 3x3 (ResNet v1.5); the batch norm's epsilon is 1e-3.
    """
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = KERAS_BN_EPSILON
    return model


# Keras' fire modules 2..9 in torchvision's squeezenet1_1.features; the gaps are max pools.
_FIRES = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))


def squeezenet_state(keras: Weights) -> StateDict:
    """Return torchvision's squeezenet1_1 state dict from the Keras port of SqueezeNet 1.1.

    Parameters
    ----------
    keras : Mapping[str, numpy.ndarray]
        Weights named ``<layer>/kernel`` and ``<layer>/bias`` with the layers ``conv1``,
        ``fire2/squeeze1x1`` ... ``fire9/expand3x3``, ``conv10``; kernels are HWIO.

    Raises
    ------
    ZooError
        If a weight is missing.
    """
    layers = {"conv1": "features.0", "conv10": "classifier.1"}
    for fire, place in _FIRES.items():
        for part in ("squeeze1x1", "expand1x1", "expand3x3"):
            name = part if part != "squeeze1x1" else "squeeze"
            layers[f"fire{fire}/{part}"] = f"features.{place}.{name}"
    state: StateDict = {}
    try:
        for layer, name in layers.items():
            state[f"{name}.weight"] = _oihw(keras[f"{layer}/kernel"])
            state[f"{name}.bias"] = _tensor(keras[f"{layer}/bias"])
    except KeyError as error:
        raise ZooError(f"this is no Keras SqueezeNet 1.1: weight {error} is missing") from error
    return state


def read_keras_h5(path: Path) -> dict[str, np.ndarray]:
    """Read a Keras ``save_weights`` HDF5 file into ``{"<layer>/kernel": array, ...}``.

    Raises
    ------
    ZooError
        If h5py is not installed or the file is no Keras 1 weight file (``_W``, ``_b`` names).
    """
    try:
        import h5py
    except ImportError as error:
        raise ZooError(not_installed("h5py", f"{path.name} is read")) from error
    try:
        with h5py.File(path) as file:
            return {
                f"{layer}/{_KERAS_LEAVES[leaf[-4:]]}": file[layer][leaf][()]
                for layer in _names(file, "layer_names")
                for leaf in _names(file[layer], "weight_names")
            }
    except (OSError, KeyError) as error:
        raise ZooError(f"{path} is no readable Keras weight file: {error}") from error


_KERAS_LEAVES = {"_W:0": "kernel", "_b:0": "bias"}


def _names(group: object, attribute: str) -> list[str]:
    return [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs[attribute]]
