"""Frontends: from other frameworks' models to fp32 or QDQ Relax."""

from .exported import from_exported_program
from .onnx import from_onnx
from .tflite import from_tflite
from .torch import from_torch
from .unquantized import without_quantization

__all__ = [
    "from_exported_program",
    "from_onnx",
    "from_tflite",
    "from_torch",
    "without_quantization",
]
