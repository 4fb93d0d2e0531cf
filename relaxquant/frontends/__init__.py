"""Frontends: from other frameworks' models to fp32 or QDQ Relax."""

from .onnx import from_onnx
from .tflite import from_tflite
from .torch import from_torch

__all__ = ["from_onnx", "from_tflite", "from_torch"]
