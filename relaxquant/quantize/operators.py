"""What annotation knows of single operators: which take 8 bits, which values cannot be negative."""

from __future__ import annotations

from tvm.ir import GenericConst
from tvm.relax import TensorType
from tvm_ffi import structural_equal

from .graph import Graph, Node

LAYERS = {"nn.conv2d": 0, "matmul": 1}
"""Operators that multiply by weights, and the output-channel axis of the weights."""

ACTIVATIONS = ("nn.relu", "clip")

VALUE_PRESERVING = ("nn.max_pool2d", "reshape", "flatten")
"""Operators that only choose or move values: exact on integers if the scale stays the same."""

EIGHT_BIT = (
    *ACTIVATIONS,
    *VALUE_PRESERVING,
    "add",
    "concat",
    "mean",
    "nn.avg_pool2d",
    "nn.adaptive_avg_pool2d",
)

_KEEP_SIGN = (
    *VALUE_PRESERVING,
    "add",
    "concat",
    "mean",
    "multiply",
    "nn.avg_pool2d",
    "nn.adaptive_avg_pool2d",
)
_NON_NEGATIVE = ("nn.relu", "sigmoid", "nn.softmax", "exp", "abs")


def layer_refusal(node: Node) -> str | None:
    """Why the conv2d or matmul `node` cannot be quantized; None if it can."""
    weight = node.value.args[1]
    if not isinstance(weight, GenericConst):
        return "its weights are not a constant"
    if weight.ty.dtype != "float32":
        return f"its weights are {weight.ty.dtype}, not float32"
    if not node.inputs:
        return "its data is a constant"
    if node.op == "matmul" and weight.ty.ndim != 2:
        return f"its weights have {weight.ty.ndim} axes, not 2"
    if node.op == "nn.conv2d":
        layouts = (node.attrs["data_layout"], node.attrs["kernel_layout"])
        if layouts != ("NCHW", "OIHW"):
            return f"its layouts are {layouts[0]} and {layouts[1]}, not NCHW and OIHW"
    return None


def eight_bit_refusal(node: Node, graph: Graph) -> str | None:
    """Why an operator without weights has no 8-bit form; None if it has one."""
    if node.op not in EIGHT_BIT:
        return f"{node.op} has no 8-bit form"
    if node.constants or not node.inputs:
        return f"{node.op} of a constant has no 8-bit form"
    if not all(_is_float_tensor(graph.nodes[index]) for index in node.inputs):
        return f"{node.op} of anything but float32 tensors has no 8-bit form"
    if node.op == "add" and not is_tensor_add(node, graph):
        return "add of different shapes has no 8-bit form"
    if node.op == "concat" and int(node.attrs["axis"]) % len(node.shape or [0]) != 1:
        return "concat has an 8-bit form on axis 1 only"
    if node.op == "mean" and not _is_spatial_mean(node, graph):
        return "mean has an 8-bit form over H and W of NCHW only"
    if node.op.endswith("pool2d") and node.attrs["layout"] != "NCHW":
        return f"{node.op} has an 8-bit form in NCHW only"
    return None


def is_tensor_add(node: Node, graph: Graph) -> bool:
    """Whether `node` adds two computed tensors of the same shape, as residual connections do."""
    if node.op != "add" or len(node.inputs) != 2:
        return False
    left, right = (graph.nodes[index].var.ty for index in node.inputs)
    return left.shape is not None and structural_equal(left, right)


def is_bias_add(node: Node, layer: Node) -> bool:
    """Whether `node` adds one constant for each output channel of `layer`."""
    if node.op != "add" or len(node.constants) != 1 or layer.shape is None:
        return False
    axis = 1 if layer.op == "nn.conv2d" else len(layer.shape) - 1
    shape = [int(size) for size in node.constants[0].ty.shape]
    if len(shape) > len(layer.shape):
        return False
    # Aligned at the end, as broadcasting does.
    padded = [1] * (len(layer.shape) - len(shape)) + shape
    channels = padded.pop(axis)
    return all(size == 1 for size in padded) and channels in (1, layer.shape[axis])


def non_negative(graph: Graph) -> frozenset[int]:
    """Nodes whose values are provably never below 0, whatever the input."""
    proven: set[int] = set()
    for node in graph.nodes:
        if _is_non_negative(node, proven):
            proven.add(node.index)
    return frozenset(proven)


def _is_non_negative(node: Node, proven: set[int]) -> bool:
    if node.op in _NON_NEGATIVE:
        return True
    if node.op == "clip":
        lowest = getattr(node.value.args[1], "value", None)
        return isinstance(lowest, int | float) and lowest >= 0
    if node.op not in _KEEP_SIGN or not (node.inputs or node.constants):
        return False
    constants = all(constant.value.numpy().min(initial=0) >= 0 for constant in node.constants)
    return constants and proven.issuperset(node.inputs)


def _is_float_tensor(node: Node) -> bool:
    return isinstance(node.var.ty, TensorType) and node.var.ty.dtype == "float32"


def _is_spatial_mean(node: Node, graph: Graph) -> bool:
    shape = graph.nodes[node.inputs[0]].shape
    if shape is None or len(shape) != 4 or node.attrs["axis"] is None:
        return False
    return sorted(int(axis) % 4 for axis in node.attrs["axis"]) == [2, 3]
