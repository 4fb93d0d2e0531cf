"""Frontends: from other frameworks' models to fp32 or QDQ Relax."""

from .exported import from_exported_program
from .half import in_half
from .onnx import from_onnx
from .symmetric import forced_symmetric
from .tflite import from_tflite
from .torch import from_torch
from .unquantized import without_quantization

__all__ = [
    "forced_symmetric",
    "from_exported_program",
    "from_onnx",
    "from_tflite",
    "from_torch",
    "in_half",
    "without_quantization",
]
