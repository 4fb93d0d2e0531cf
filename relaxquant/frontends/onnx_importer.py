"""TVM's ONNX importer, mended where it emits loops of its own instead of Relax operators.

Of Clip and Pad the importer makes TE functions, which hide from a compiler what they are; here they
become ``R.clip``, ``R.nn.relu`` and ``R.nn.pad``. What fails is named by its node.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax import op as R
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from ..errors import ModelError
from .onnx_graph import describe


def convert(proto: onnx.ModelProto) -> tvm.IRModule:
    """TVM's import of a model.

    Raises
    ------
    ModelError
        For the first node that cannot be imported, and why.
    """
    nodes = {}
    for index, node in enumerate(proto.graph.node):
        nodes[str(index)] = describe(node)
        node.name = str(index)  # what the importer hands to a converter
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    module = Importer(nodes).from_onnx(proto.graph, opset)
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if isinstance(call, relax.Call) and call.op == tvm.ir.Op.get("relax.call_tir"):
                function = call.args[0].name_hint
                raise ModelError(f"an operator comes as a loop nest, {function!r}, not as Relax")
    return module


class Importer(ONNXGraphImporter):
    """TVM's importer with converters of our own.

    Parameters
    ----------
    nodes : dict of str to str
        Name of each node in the graph -> what to call it in an error.
    """

    def __init__(self, nodes: dict[str, str]):
        super().__init__(None, "float32")
        self.nodes = nodes

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            single = onnx.GraphProto(node=[node])
            try:
                super()._check_for_unsupported_ops(single)
            except tvm.error.OpNotImplemented as error:
                said = "TVM's importer does not know the operator"
                raise ModelError(f"{self.nodes[node.name]} ({said})") from error

    def _convert_operator(self, op_name: str, inputs, attrs: dict, opset: int) -> relax.Expr:
        """One node as Relax, by a converter of ours if it takes the node."""
        try:
            converter = CONVERTERS.get(op_name)
            converted = converter(list(inputs), attrs) if converter else None
            if converted is not None:
                return self.bb.emit(converted)
            return super()._convert_operator(op_name, inputs, attrs, opset)
        except Exception as error:
            node = self.nodes.get(attrs["tvm_custom"]["name"], op_name)
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ModelError(f"{node} ({reason})") from error


def _clip(inputs: list, attrs: dict) -> relax.Expr | None:
    """Clip by constants: attributes before opset 11, inputs since."""
    if inputs[0].ty.dtype != "float32":
        return None
    low, high = attrs.get("min", -np.inf), attrs.get("max", np.inf)
    bounds = [low if len(inputs) < 2 else inputs[1], high if len(inputs) < 3 else inputs[2]]
    for index, default in enumerate((-np.inf, np.inf)):
        if isinstance(bounds[index], GenericConst):
            bounds[index] = float(bounds[index].value.numpy().reshape(()))
        elif bounds[index] is None:
            bounds[index] = default
    if any(isinstance(bound, relax.Expr) or np.isnan(bound) for bound in bounds):
        return None
    low, high = bounds
    return R.nn.relu(inputs[0]) if (low, high) == (0, np.inf) else R.clip(inputs[0], low, high)


def _pad(inputs: list, attrs: dict) -> relax.Expr | None:
    """Pad of all axes by a constant number of values, all equal to one constant."""
    data, widths = inputs[0], attrs.get("pads")
    value = attrs.get("value", 0.0)
    if len(inputs) > 1 and isinstance(inputs[1], GenericConst):
        widths = inputs[1].value.numpy().tolist()
    if len(inputs) > 2 and inputs[2] is not None:
        value = inputs[2].value.numpy().item() if isinstance(inputs[2], GenericConst) else None
    rank = len(data.ty.shape)
    plain = attrs.get("mode", b"constant") == b"constant" and not inputs[3:]
    if not plain or widths is None or value is None or len(widths) != 2 * rank or min(widths) < 0:
        return None
    interleaved = [int(widths[axis + end * rank]) for axis in range(rank) for end in (0, 1)]
    return R.nn.pad(data, interleaved, "constant", float(value))


CONVERTERS: dict[str, Callable] = {"Clip": _clip, "Pad": _pad}
