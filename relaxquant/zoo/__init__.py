"""Models, trained weights and labelled images, from wherever this machine can get them.

Everything goes through a provider chain whose steps are logged to ``relaxquant.zoo`` and kept with
the result; what is downloaded is pinned by SHA-256 and lies in ``$RELAXQUANT_CACHE`` or
``~/.cache/relaxquant``. torch is needed by `load_model` and torchvision by most models; importing
this package needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import FetchError, ZooError

if TYPE_CHECKING:
    from .classes import class_names
    from .images import calibration_images, cat, evaluation_images
    from .loading import list_models, load_model
    from .network import Network
    from .pool import Images
    from .tflite import TFLiteModel, list_tflite, load_tflite

_HOME = {
    "class_names": "classes",
    "calibration_images": "images",
    "evaluation_images": "images",
    "cat": "images",
    "list_models": "loading",
    "load_model": "loading",
    "Network": "network",
    "Images": "pool",
    "TFLiteModel": "tflite",
    "list_tflite": "tflite",
    "load_tflite": "tflite",
}

__all__ = [
    "FetchError",
    "Images",
    "Network",
    "TFLiteModel",
    "ZooError",
    "calibration_images",
    "cat",
    "class_names",
    "evaluation_images",
    "list_models",
    "list_tflite",
    "load_model",
    "load_tflite",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if _HOME[name] == "loading":
        from ._torchvision import import_torch

        import_torch()
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
