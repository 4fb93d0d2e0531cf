"""An ONNX graph that is written anew, node by node, with its constants at hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper


class GraphWriter:
    """Copies a model node by node; what is to change is written in place of a node.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place by `finish`.
    """

    def __init__(self, model: onnx.ModelProto):
        self.model = model
        self.source = list(model.graph.node)
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self._names = set(self.constants)
        for node in self.source:
            self._names.update((*node.input, *node.output))

    def array(self, name: str) -> np.ndarray | None:
        """The constant of a name; None if it is none, or the name is empty."""
        return self.constants.get(name)

    def constant(self, array: np.ndarray, like: str) -> str:
        """Add a constant; returns its name."""
        name = self.fresh(like)
        self.constants[name] = array
        return name

    def fresh(self, like: str) -> str:
        """A name that nothing has."""
        count = 0
        while (name := f"{like}_{count}") in self._names:
            count += 1
        self._names.add(name)
        return name

    def keep(self, node: onnx.NodeProto) -> None:
        """Copy a node as it is."""
        self.nodes.append(node)

    def emit(self, op: str, inputs: Sequence[str], output: str, **attributes) -> str:
        """Write a node of ONNX's own domain; returns its output."""
        given = {name: value for name, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **given))
        return output

    def dequantize(self, name: str, scale: str, zero_point: str, axis: int | None = None) -> str:
        """Write a DequantizeLinear; returns its output."""
        parameters = [scale, zero_point] if zero_point else [scale]
        output = self.fresh(f"{name}_dequantized")
        return self.emit("DequantizeLinear", [name, *parameters], output, axis=axis)

    def quantize(self, name: str, scale: str, zero_point: str, output: str) -> str:
        """Write a QuantizeLinear with a given output."""
        parameters = [scale, zero_point] if zero_point else [scale]
        return self.emit("QuantizeLinear", [name, *parameters], output)

    def finish(self) -> onnx.ModelProto:
        """The model with the nodes written, and the constants that they read."""
        graph = self.model.graph
        used = {name for node in self.nodes for name in node.input}
        used.update(output.name for output in graph.output)
        constants = [
            numpy_helper.from_array(array, name)
            for name, array in self.constants.items()
            if name in used
        ]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(constants)
        return self.model


def attributes(node: onnx.NodeProto) -> dict:
    """A node's attributes as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def describe(node: onnx.NodeProto) -> str:
    """``Conv 'conv1'`` for messages; by its output where it has no name."""
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{operator} {(node.name or node.output[0])!r}"
