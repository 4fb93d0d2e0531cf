"""TensorFlow Lite to QDQ Relax, by TVM's importer.

The importer turns every quantized operator into dequantize, a float operator in NHWC and quantize.
`tflite_operators` mends what it does otherwise, and `channels_first` brings all to NCHW, as the
lowering knows it; only inputs and outputs keep the model's own layout and type.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tvm

from ..errors import ModelError, not_installed
from .channels_first import channels_first

if TYPE_CHECKING:
    import tflite

IDENTIFIER = b"TFL3"


def from_tflite(path: str | Path) -> tvm.IRModule:
    """Import a quantized or float ``.tflite`` model.

    Parameters
    ----------
    path : str or pathlib.Path
        The file. Models of uint8 and int8 come as QDQ Relax with the numbers they hold: scales,
        zero points, int32 biases. Float ones come as fp32 Relax.

    Returns
    -------
    tvm.IRModule
        One function ``main``. It takes and gives what the model does: an image is (1, H, W, C), and
        uint8, int8 or float32. Relax variables are called as the model's tensors are.

    Raises
    ------
    ModelError
        If the file is missing, truncated or no TFLite model, if its activations are not quantized
        although its weights are (dynamic range), or if it has an operator that cannot be imported;
        the message names the operator.

    Notes
    -----
    Source of the importer: ``tvm/relax/frontend/tflite/tflite_frontend.py``.
    """
    from .tflite_operators import convert  # needs the package tflite

    path = Path(path)
    model = read_model(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the packages, not the user's
        return channels_first(convert(model, path.name))


def read_model(path: Path) -> tflite.Model:
    """The flatbuffer of a ``.tflite`` file, looked through once; ModelError if it is damaged."""
    try:
        import tflite
    except ImportError as error:
        raise ModelError(not_installed("tflite", "TFLite models are read")) from error
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    content = path.read_bytes()
    if content[4:8] != IDENTIFIER:
        raise ModelError(f"{path} is not a TFLite model: give a .tflite file")
    try:
        model = tflite.Model.GetRootAsModel(content, 0)
        whole = _walk(model) <= len(content)
    except Exception as error:  # flatbuffers raise whatever the bytes happen to lead to
        raise ModelError(f"{path} is truncated or damaged: fetch it again") from error
    if not whole:
        raise ModelError(f"{path} is truncated: fetch it again")
    return model


@dataclass(frozen=True)
class Interface:
    """An input or output of a model: its name, shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def interface(path: str | Path) -> tuple[list[Interface], list[Interface]]:
    """Inputs and outputs of a ``.tflite`` file; raises as `from_tflite` where it cannot be read."""
    import tflite

    types = {value: name.lower() for name, value in vars(tflite.TensorType).items()}
    graph = read_model(Path(path)).Subgraphs(0)

    def described(index: int) -> Interface:
        tensor = graph.Tensors(int(index))
        shape = tuple(int(size) for size in tensor.ShapeAsNumpy())
        return Interface(tensor.Name().decode(), shape, types[tensor.Type()])

    inputs, outputs = graph.InputsAsNumpy(), graph.OutputsAsNumpy()
    return [described(i) for i in inputs], [described(i) for i in outputs]


def _walk(model: tflite.Model) -> int:
    """Read all tensors and operators; returns where the last constant ends in the file."""
    end = 0
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            end = max(end, buffer._tab.Vector(buffer._tab.Offset(4)) + buffer.DataLength())
    for s in range(model.SubgraphsLength()):
        graph = model.Subgraphs(s)
        for i in range(graph.TensorsLength()):
            tensor = graph.Tensors(i)
            tensor.Name(), tensor.ShapeAsNumpy(), tensor.Type(), tensor.Quantization()
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            operator.InputsAsNumpy(), operator.OutputsAsNumpy()
            model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
    return end
