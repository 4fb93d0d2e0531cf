"""From (QDQ) Relax to the lowering's graph: one reader for each operator.

A reader that does not recognise its call returns a reason, and the call stays with TVM in float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tvm
from tvm import relax

from ..errors import ModelError
from ..kernels.fixed_point import FLOAT
from ..kernels.spec import FLOATS, Window
from .graph import Graph, Node, Value, Weight

READERS: dict[str, Callable] = {}


def reads(*operators: str) -> Callable:
    """Register the decorated method as the reader of the operators ``relax.<name>``."""

    def add(function: Callable) -> Callable:
        READERS.update({f"relax.{name}": function for name in operators})
        return function

    return add


def main_of(module: tvm.IRModule) -> relax.Function:
    """``main`` of a fp32 or QDQ Relax module.

    Raises
    ------
    ModelError
        If there is no ``main``.
    """
    if "main" not in [var.name_hint for var in module.get_global_vars()]:
        raise ModelError("the module has no function 'main'; import it with rq.frontends")
    return module["main"]


class Unsupported(Exception):
    """Raised by a reader with the reason why no kernel takes the call."""


class Reader:
    """Reads ``main`` of a float or QDQ module, binding by binding: one node for each operator.

    Where there are kernels for float16, ``half``, a cast to it says how a value is stored, and one
    to float32 changes nothing, as kernels compute in it. So sums that are cast, biased and clipped
    are rounded once. Elsewhere float16 stays with TVM.

    ``main`` must be straight-line code over tensors of static shape but for the batch; anything
    else raises ModelError.
    """

    def __init__(
        self,
        function: relax.Function,
        keep_float: Mapping[str, str] | None = None,
        requantize: str = FLOAT,
        half: bool = False,
    ):
        self.function, self.requantize, self.half = function, requantize, half
        self.keep_float = keep_float or {}  # layers that integers cannot compute -> the reason
        self.known: dict = {}  # Relax variable -> Value, Constant, Weight or tuple of those
        self.bound: dict = {}  # Relax variable -> what it is bound to
        self.nodes: list[Node] = []
        self.defined_by: dict[Value, Node] = {}
        self.flattened: set[Value] = set()  # (N, C * H * W) of (N, C, H, W)
        self.transposed: dict[Value, Value] = {}  # (N, H, W, C) of TVM's -> the (N, C, H, W) of it
        self.returned = _returned(function)
        self.inputs: list[Value] = []

    def graph(self) -> Graph:
        """Read all bindings and the result."""
        inputs = self.inputs = [self._input(var) for var in self.function.params]
        for block in self.function.body.blocks:
            for binding in block.bindings:
                if not isinstance(binding, relax.VarBinding):
                    raise ModelError("match_cast in main is not supported")
                self.bound[binding.var] = binding.value
                self.known[binding.var] = self._expression(binding.var, binding.value)
        result = self._result(self.function.body.body)
        outputs = list(result) if isinstance(result, tuple) else [result]
        if not all(isinstance(value, Value) for value in outputs):
            raise ModelError("main returns a constant or a nested tuple; it must return tensors")
        graph = Graph(inputs, self.nodes, outputs, isinstance(result, tuple))
        graph.drop_dead()
        return graph

    def _result(self, expression):
        """What ``main`` returns; a value that is kept otherwise in the form that its type says."""
        if isinstance(self.bound.get(expression), relax.Tuple):
            expression = self.bound[expression]
        if isinstance(expression, relax.Tuple):
            return tuple(self._result(field) for field in expression.fields)
        value = self.lookup(expression)
        if not isinstance(value, Value) or not (value.is_quantized or value.dtype == "float16"):
            return value
        dtype = dtype_of(expression)
        is_so = dtype == value.float_dtype  # or becomes so by the layout's conversion
        return value if is_so else self.store(value, f"{value.name}_stored", dtype)

    def store(self, value: Value, name: str, dtype: str, channels_last: bool = False) -> Value:
        """Append the node that gives ``value`` to the caller, as ``dtype``."""
        output = Value(name, value.shape, dtype, foreign=True, channels_last=channels_last)
        if dtype != "float32":
            output.scale = value.scale
            output.zero_point = value.zero_point - (128 if dtype == "int8" else 0)
        return self.add("store", [value], output)

    def _input(self, var) -> Value:
        value = Value(var.name, shape_of(var), dtype_of(var), foreign=True)
        self.known[var] = value
        return value

    def _expression(self, var, expression):
        if isinstance(expression, relax.Var):
            return self.known[expression]
        if isinstance(expression, relax.Tuple):
            return tuple(self.lookup(field) for field in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            source = self.lookup(expression.tuple_value)
            if isinstance(source, tuple):
                return source[expression.index]
            output = Value(var.name, shape_of(var), dtype_of(var), foreign=True)
            return self.add("tvm", [source], output, call=expression)
        elif isinstance(expression, tvm.ir.Constant):
            return expression
        elif isinstance(expression, relax.Call) and isinstance(expression.op, tvm.ir.Op):
            return self._call(var, expression)
        raise ModelError(
            f"{var.name}: {type(expression).__name__} is not supported in main; only operators on "
            "tensors are (inline functions and resolve control flow first)"
        )

    def _call(self, var, call):
        reader = READERS.get(call.op.name)
        reason = f"no kernel for {call.op.name}"
        if reader is not None:
            try:
                return reader(self, var, call)
            except Unsupported as unsupported:
                reason = str(unsupported)
        return self._leave_to_tvm(var, call, reason)

    def _leave_to_tvm(self, var, call, reason: str) -> Value:
        inputs: list[Value] = []
        collect_values([self.lookup(arg) for arg in call.args], inputs)
        inputs = [self._transposed(value) for value in inputs]
        output = Value(var.name, shape_of(var), dtype_of(var), foreign=True)
        return self.add("tvm", inputs, output, call=call, reason=reason)

    def _transposed(self, value: Value) -> Value:
        """What TVM's operators read of a value; a view of the caller's integers is made real.

        No kernel does it for them: those that convert for TVM give floats.
        """
        if not value.channels_last or value.dtype == "float32":
            return value
        view = self.defined_by[value]
        output = Value(f"{value.name}_transposed", value.shape, value.dtype, foreign=True)
        reason = "permute_dims of integers that TVM reads"
        return self.add("tvm", view.inputs, output, call=view.call, reason=reason)

    def add(self, op: str, inputs: list[Value], output: Value, **fields) -> Value:
        """Append a node and return its output."""
        node = Node(op, inputs, output, output.name, requantize=self.requantize, **fields)
        self.nodes.append(node)
        self.defined_by[output] = node
        return output

    def lookup(self, expression):
        """What is known of an argument: a Value, a Weight, a constant, or a tuple of those."""
        if isinstance(expression, relax.Var):
            return self.known[expression]
        if isinstance(expression, relax.Tuple):
            return tuple(self.lookup(field) for field in expression.fields)
        return expression

    def value(self, expression, rank: int | None = None) -> Value:
        """The argument as a feature map, or Unsupported."""
        value = self.lookup(expression)
        if not isinstance(value, Value):
            raise Unsupported("an operand is a constant where an activation is expected")
        has_kernels = value.is_feature_map and (self.half or value.dtype != "float16")
        if not has_kernels or rank not in (None, len(value.shape)):
            raise Unsupported(f"operand of shape {value.shape} and dtype {value.dtype}")
        return value

    def array(self, expression) -> np.ndarray | None:
        """The argument as a NumPy array if it is a constant."""
        known = self.lookup(expression)
        return known.value.numpy() if isinstance(known, tvm.ir.GenericConst) else None


def _returned(function: relax.Function) -> set:
    """Variables whose value ``main`` returns as it is."""
    result = function.body.body
    returned = set(result.fields if isinstance(result, relax.Tuple) else [result])
    for block in reversed(function.body.blocks):
        for binding in reversed(block.bindings):
            if binding.var in returned and isinstance(binding.value, relax.Var):
                returned.add(binding.value)
    return returned


def float_output(var) -> Value:
    """What an operator on floats gives, by the type of its Relax variable."""
    return Value(var.name, shape_of(var), dtype_of(var) if dtype_of(var) in FLOATS else FLOATS[0])


def shape_of(var) -> tuple:
    """Static shape of a Relax variable, with None for a symbolic batch."""
    if not isinstance(var.ty, relax.TensorType) or var.ty.shape is None:
        if isinstance(var.ty, relax.TupleType):
            return ()
        raise ModelError(f"{var.name} has no known shape: {var.ty}")
    shape = [int(d) if isinstance(d, tvm.tirx.IntImm) else None for d in var.ty.shape]
    if None in shape[1:]:
        raise ModelError(f"{var.name}: only the first dimension may be symbolic, got {var.ty}")
    return tuple(shape)


def dtype_of(var) -> str:
    """dtype of a Relax variable, ``"tuple"`` for what only TVM's own operators can take."""
    return str(var.ty.dtype) if isinstance(var.ty, relax.TensorType) else "tuple"


def collect_values(known, into: list[Value]) -> None:
    """Append every Value in nested tuples and lists, in order."""
    if isinstance(known, Value):
        into.append(known)
    elif isinstance(known, list | tuple):
        for item in known:
            collect_values(item, into)


def window_of(call, kernel, data: Value, output_shape) -> Window:
    """Window from a call's attributes, with padding that explains the output's size exactly."""
    attrs = call.attrs
    top, left, bottom, right = (int(p) for p in attrs["padding"])
    strides = tuple(int(s) for s in attrs["strides"])
    dilation = tuple(int(d) for d in attrs["dilation"])
    sizes = []
    for axis, (before, after) in enumerate(((top, bottom), (left, right))):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        needed = (output_shape[2 + axis] - 1) * strides[axis] + reach
        # ceil_mode reads beyond the padding: make that padding explicit.
        sizes.append((before, max(after, needed - before - data.shape[2 + axis])))
    (top, bottom), (left, right) = sizes
    return Window(tuple(kernel), strides, (top, left, bottom, right), dilation)


def weight_of(reader: Reader, expression, axis: int, data: Value) -> Weight:
    """Constant weights: floats, or integers by dequantize along the output-channel axis."""
    known = reader.lookup(expression)
    array = reader.array(expression)
    if array is None and not isinstance(known, QuantizedConstant):
        raise Unsupported("weights that are not constant")
    if data.dtype == "float16" and (array is None or array.dtype != data.dtype):
        raise Unsupported("weights that are not float16, of data that is")
    return Weight(array) if array is not None else known.weight(axis)


class QuantizedConstant:
    """A dequantized constant of int8, uint8 or int16, before it is known whose weights it is.

    It becomes int8 without zero points wherever the differences fit: uint8 is shifted by 128, and
    zero points that are left are subtracted here where no weight then needs a ninth bit.
    """

    def __init__(
        self, array: np.ndarray, scale: np.ndarray, axis: int, zero_point: np.ndarray | int = 0
    ):
        self.scale, self.axis = scale, axis % array.ndim
        self.unsigned = array.dtype == np.uint8
        zero_point = np.asarray(zero_point, np.int32).reshape(-1)
        if array.dtype == np.uint8:
            array, zero_point = (array ^ 128).view(np.int8), zero_point - 128
        differences = array.astype(np.int32) - self._along_axis(zero_point, array.ndim)
        ends = np.iinfo(array.dtype)
        if differences.min(initial=0) >= ends.min and differences.max(initial=0) <= ends.max:
            array, zero_point = differences.astype(array.dtype), np.zeros(1, np.int32)
        self.array, self.zero_point = array, zero_point

    def weight(self, axis: int) -> Weight:
        """The constant as weights whose output channels lie along ``axis``."""
        if self.axis != axis and max(self.scale.size, self.zero_point.size) > 1:
            raise Unsupported(f"weight scales along axis {self.axis} instead of {axis}")
        scale, zero_point = (
            np.broadcast_to(parameter.reshape(-1), (self.array.shape[axis],))
            for parameter in (self.scale, self.zero_point)
        )
        zero_point = zero_point if zero_point.any() else None
        return Weight(self.array, scale.astype(np.float64), zero_point, self.unsigned)

    @property
    def dequantized(self) -> np.ndarray:
        """The constant as float32."""
        scale, zero_point = (
            self._along_axis(parameter.reshape(-1), self.array.ndim)
            for parameter in (self.scale, self.zero_point)
        )
        return ((self.array.astype(np.int32) - zero_point) * scale).astype(np.float32)

    def _along_axis(self, parameter: np.ndarray, rank: int) -> np.ndarray:
        """One value, or one for each index along the axis, in a form that broadcasts."""
        shape = [1] * rank
        shape[self.axis] = -1
        return parameter.reshape(shape)


from . import readers, window_readers  # noqa: E402, F401  fill READERS
