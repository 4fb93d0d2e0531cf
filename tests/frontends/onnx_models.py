"""Small ONNX models made on the spot, and what ONNX Runtime computes for them."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def model(nodes, x_shape, constants: dict, *, x_type=TensorProto.FLOAT, y_type=TensorProto.FLOAT):
    """A model that computes ``y`` from ``x``; the opset is old enough for all that reads it."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", x_type, x_shape)],
        [helper.make_tensor_value_info("y", y_type, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def exported(network: torch.nn.Module, x: torch.Tensor, path):
    """A torch network as an ONNX file."""
    torch.onnx.export(
        network,
        (x,),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=["x"],
        output_names=["y"],
    )
    return path


def quantized(path, batches: list[np.ndarray], *, qoperator: bool = False, **options):
    """The file's network as ONNX Runtime quantizes it, another file beside it.

    With 7 bits for weights: where the CPU has no VNNI, ONNX Runtime's own sums saturate otherwise.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready, done = path.with_suffix(".ready.onnx"), path.with_suffix(".quantized.onnx")
    quant_pre_process(path, ready)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    types |= {k: getattr(QuantType, v) for k, v in options.items() if k in types}
    rest = {k: v for k, v in options.items() if k not in types}
    quantize_static(
        ready,
        done,
        _Reader(batches),
        quant_format=QuantFormat.QOperator if qoperator else QuantFormat.QDQ,
        reduce_range=True,
        **types,
        **{"per_channel": True} | rest,
    )
    return done


class _Reader:
    """Calibration batches one at a time, as `CalibrationDataReader` gives them."""

    def __init__(self, batches):
        self._batches = iter(batches)

    def get_next(self):
        batch = next(self._batches, None)
        return None if batch is None else {"x": batch}


def onnxruntime_run(model_or_path, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime gives, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    is_model = isinstance(model_or_path, onnx.ModelProto)
    source = model_or_path.SerializeToString() if is_model else str(model_or_path)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
