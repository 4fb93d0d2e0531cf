"""Names of the classes."""

from __future__ import annotations

from ._torchvision import import_torchvision
from .errors import ZooError

N_CLASSES = {"imagenet": 1000, "cifar10": 10}
_CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def class_names(dataset: str) -> list[str]:
    """Return the class names of a dataset; the index is the label.

    ImageNet's are those of torchvision's weight metadata (two pairs of its 1000 names are alike).

    Parameters
    ----------
    dataset : str
        ``"imagenet"`` or ``"cifar10"``.

    Raises
    ------
    ZooError
        If the dataset is unknown, or torchvision is needed and does not import.
    """
    if dataset == "cifar10":
        return list(_CIFAR10)
    if dataset == "imagenet":
        weights = import_torchvision().models.ResNet18_Weights.IMAGENET1K_V1
        return list(weights.meta["categories"])
    raise ZooError(f"no class names for {dataset!r}; known: {', '.join(N_CLASSES)}")
