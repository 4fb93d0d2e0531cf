"""Exported PyTorch programs, quantized by PT2E or not, to QDQ or fp32 Relax.

PyTorch's quantization of exported graphs (PT2E, now in torchao) leaves float operators between
calls of ``torch.ops.quantized_decomposed``, which TVM's importer does not know; it takes converters
for them (``custom_convert_map`` of ``tvm.relax.frontend.torch.from_exported_program``). What each
operator computes is in ``torch/ao/quantization/fx/_decomposed.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tvm
from tvm import relax
from tvm.relax import op as R

from ..errors import ModelError
from .imported_qdq import normalise
from .torch import import_program

if TYPE_CHECKING:
    import torch

INTEGERS = ("int8", "uint8", "int16")  # what lowering knows, of those that R.quantize makes
DYNAMIC = ("choose_qparams.tensor", "choose_qparams_symmetric.tensor")
DYNAMIC += ("choose_qparams_per_token.default", "choose_qparams_per_token_asymmetric.default")
DYNAMIC += ("_choose_qparams_per_token_asymmetric_impl.default",)


def from_exported_program(program: torch.export.ExportedProgram) -> tvm.IRModule:
    """Import an exported program: quantized statically by PT2E, or in float32.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        What ``torch.export.export`` returns, of a float32 model or of what torchao's
        ``convert_pt2e`` returned. The batch may be open, by ``dynamic_shapes``.

    Returns
    -------
    tvm.IRModule
        ``main`` with constants for weights; it is stock Relax.

    Raises
    ------
    ModelError
        If it is no exported program, has an operator that TVM cannot import, or quantizes
        activations at run time (dynamic quantization) or to a type without kernels.
    """
    import torch

    if not isinstance(program, torch.export.ExportedProgram):
        raise ModelError(
            f"expected a torch.export.ExportedProgram, got {type(program).__name__}: "
            "torch.export.export(model, (example_input,)) makes one, also of what convert_pt2e "
            "returns"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and TVM, not the user's
        return normalise(import_program(program, "the exported program", CONVERTERS))


def _quantize(node, importer) -> relax.Var:
    """``quantize_per_tensor``: input, scale, zero point, quant_min, quant_max, dtype."""
    data, scale, zero_point, *rest = importer.retrieve_args(node)
    return _emit_quantize(node, importer, data, (scale, zero_point), *rest)


def _quantize_per_channel(node, importer) -> relax.Var:
    """``quantize_per_channel``: as per tensor, with an axis after the zero points."""
    data, scale, zero_point, axis, *rest = importer.retrieve_args(node)
    return _emit_quantize(node, importer, data, (scale, zero_point), *rest, axis=axis)


def _dequantize(node, importer) -> relax.Var:
    """``dequantize_per_tensor``: integers, scale, zero point, quant_min, quant_max, dtype."""
    data, scale, zero_point = importer.retrieve_args(node)[:3]
    return _emit_dequantize(importer, data, scale, zero_point)


def _dequantize_per_channel(node, importer) -> relax.Var:
    """``dequantize_per_channel``: zero points may be None."""
    data, scale, zero_point, axis = importer.retrieve_args(node)[:4]
    return _emit_dequantize(importer, data, scale, 0 if zero_point is None else zero_point, axis)


def _refuse_dynamic(node, _importer):
    raise ModelError(
        f"{node.name} ({node.target.__name__}) finds scales at run time (dynamic quantization), "
        "and only static ones can be lowered to integers: prepare the model with a quantizer whose "
        "configuration is static, and calibrate it"
    )


CONVERTERS: dict[str, Callable] = {
    "quantize_per_tensor.default": _quantize,
    "quantize_per_tensor.tensor": _quantize,
    "quantize_per_channel.default": _quantize_per_channel,
    "dequantize_per_tensor.default": _dequantize,
    "dequantize_per_tensor.tensor": _dequantize,
    "dequantize_per_channel.default": _dequantize_per_channel,
    **dict.fromkeys(DYNAMIC, _refuse_dynamic),
}


def _emit_quantize(node, importer, data, parameters, low, high, dtype, axis=None) -> relax.Var:
    """An R.quantize, clipped before where the program uses a part of the type's range."""
    bb, dtype = importer.block_builder, _name(dtype)
    if dtype not in INTEGERS:
        raise ModelError(
            f"{node.name} ({node.target.__name__}) quantizes to {dtype}, and kernels compute in "
            f"{', '.join(INTEGERS)}: choose one of these in the quantizer's configuration"
        )
    scale, zero_point = (_constant(value, "float32") for value in parameters)
    ends = np.iinfo(dtype)
    shape = [1] * len(data.ty.shape)
    if axis is not None:
        shape[axis] = -1
    for end, used, bound in ((ends.min, low, R.maximum), (ends.max, high, R.minimum)):
        if used != end:
            steps = bb.emit(R.subtract(relax.const(np.float32(used)), zero_point))
            value = bb.emit(R.multiply(scale, steps))
            value = value if axis is None else bb.emit(R.reshape(value, shape))
            data = bb.emit(bound(data, value))
    zero_point = _constant(parameters[1], dtype)
    return bb.emit(
        R.quantize(data, scale, zero_point, axis=-1 if axis is None else axis, out_dtype=dtype)
    )


def _emit_dequantize(importer, data, scale, zero_point, axis=-1) -> relax.Var:
    zero_point = _constant(zero_point, str(data.ty.dtype))
    scale = _constant(scale, "float32")
    return importer.block_builder.emit(R.dequantize(data, scale, zero_point, axis=axis))


def _constant(value, dtype: str) -> relax.Expr:
    """A number of the program, or a tensor of its state, as `dtype`."""
    if isinstance(value, relax.Expr):
        return value if str(value.ty.dtype) == dtype else R.astype(value, dtype)
    return relax.const(np.array(value, dtype))


def _name(dtype) -> str:
    return str(dtype).removeprefix("torch.")
