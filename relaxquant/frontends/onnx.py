"""ONNX to fp32 or QDQ Relax, by TVM's importer."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tvm

from ..errors import InputError, ModelError, cannot_import, not_installed
from .imported_qdq import normalise

if TYPE_CHECKING:
    import onnx

PACKED = {"int4": "int8", "uint4": "uint8", "int2": "int8", "uint2": "uint8"}


def from_onnx(
    model: str | Path | onnx.ModelProto, *, shapes: Mapping[str, Sequence[int]] | None = None
) -> tvm.IRModule:
    """Import an ONNX model: quantized as QDQ or by QLinear operators, or in float32.

    ``QLinearConv``, ``QLinearMatMul`` and ONNX Runtime's ``QGemm``, ``QLinearAdd``, ``QLinearMul``,
    ``QLinearConcat``, ``QLinearAveragePool``, ``QLinearGlobalAveragePool``, ``QLinearSigmoid``,
    ``QLinearLeakyRelu`` and ``QLinearSoftmax`` are written as QDQ first; weights of 2 and 4 bits
    are kept in bytes. Of a float32 model batch norms are folded, and it can be given to
    `relaxquant.quantize`.

    Parameters
    ----------
    model : str, pathlib.Path or onnx.ModelProto
        A ``.onnx`` file, or what is in one.
    shapes : mapping of str to sequence of int, optional
        Shapes of inputs, where the model leaves dimensions open. A batch may stay open.

    Returns
    -------
    tvm.IRModule
        ``main`` with constants for weights; it is stock Relax.

    Raises
    ------
    ModelError
        If the file is missing or damaged, ``onnx`` is not installed, the model quantizes at run
        time (dynamic quantization), is not in float32 between its integers, or has an operator
        that TVM cannot import; the message names it.
    InputError
        If ``shapes`` names no input of the model, or has another number of dimensions.

    Notes
    -----
    Source of the importer: ``tvm/relax/frontend/onnx/onnx_frontend.py``.
    """
    _require_onnx()
    from .onnx_graph import GraphWriter
    from .onnx_qlinear import rewrite_qlinear

    proto, name = _read(model)
    _check_inputs(proto, name)
    _set_shapes(proto, shapes or {})
    _constants_to_initializers(proto)
    writer = GraphWriter(proto)
    rewrite_qlinear(writer)
    _widen(writer)
    return normalise(_import(writer.finish(), name))


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ModelError(not_installed("onnx", "ONNX models are read")) from error


def _read(model) -> tuple[onnx.ModelProto, str]:
    """A copy of the model that may be changed, and what to call it."""
    import onnx

    if isinstance(model, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy, model.graph.name or "the model"
    if not isinstance(model, str | Path):
        raise ModelError(f"expected a path or an onnx.ModelProto, got {type(model).__name__}")
    path = Path(model)
    if not path.is_file():
        raise ModelError(f"there is no ONNX file {str(path)!r}")
    try:
        proto = onnx.load(path)
    except Exception as error:
        raise ModelError(
            f"{path.name} cannot be read as ONNX ({_first_line(error)}): the file is damaged, cut "
            "off, or of another format; fetch or export it again"
        ) from error
    return proto, path.name


def _check_inputs(proto: onnx.ModelProto, name: str) -> None:
    from onnx import TensorProto

    if not proto.graph.node:
        raise ModelError(f"{name} holds no graph: the file is empty, cut off, or no ONNX model")
    narrow = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    tensors = {each.name: each.type.tensor_type.elem_type for each in proto.graph.input}
    tensors |= {each.name: each.data_type for each in proto.graph.initializer}
    for tensor, dtype in tensors.items():
        if dtype in narrow:
            raise ModelError(
                f"{name}: {tensor!r} is {TensorProto.DataType.Name(dtype).lower()}, but kernels "
                "compute in integers or float32: export the model in float32"
            )


def _set_shapes(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    inputs = {each.name: each.type.tensor_type for each in proto.graph.input}
    for name, shape in shapes.items():
        if name not in inputs:
            raise InputError(f"shapes names no input {name!r} (there are: {', '.join(inputs)})")
        dims = inputs[name].shape.dim
        if len(dims) not in (0, len(shape)):
            raise InputError(f"input {name!r} has {len(dims)} dimensions, not {len(shape)}")
        del dims[:]
        for size in shape:
            dims.add().dim_value = int(size)
    if shapes:
        del proto.graph.value_info[:]  # of other shapes


def _constants_to_initializers(proto: onnx.ModelProto) -> None:
    """Constant nodes become initializers, so that there is one place for constants."""
    from onnx import numpy_helper

    kept = []
    for node in proto.graph.node:
        value = next((a for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = proto.graph.initializer.add()
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(value.t)))
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


def _widen(writer) -> None:
    """Integers of 2 and 4 bits in bytes, which TVM's constants can hold."""
    for name, array in writer.constants.items():
        if (wide := PACKED.get(str(array.dtype))) is not None:
            writer.constants[name] = array.astype(np.int32).astype(wide)


def _import(proto: onnx.ModelProto, name: str) -> tvm.IRModule:
    from .onnx_importer import convert

    try:
        # The importer warns of renamed tensors and prints what fails.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return convert(proto)
    except Exception as error:
        raise cannot_import(name, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
