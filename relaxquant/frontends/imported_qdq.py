"""Imported QDQ Relax in the form that lowering reads, with nothing but stock operators.

What other frameworks quantize arrives with its constants in many forms: a bias as int32 behind
``R.dequantize``, a weight as float32 behind ``R.quantize`` and ``R.dequantize``, or transposed
after it. Here biases become float32, and each layer's weight one ``R.dequantize`` of an integer
constant. Activations are left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst, GlobalVar, Op
from tvm.relax import op as R

from .clean import clean

LAYERS = ("relax.nn.conv2d", "relax.matmul")
WEIGHT = 1  # which argument of a layer
WEIGHT_DTYPES = ("int8", "uint8", "int16")
# Of constants, so that what importers compute of scales and bounds is constant, too.
FOLDED = {
    "relax.astype": np.asarray,
    "relax.isnan": np.isnan,
    "relax.where": np.where,
    "relax.multiply": np.multiply,
    "relax.subtract": np.subtract,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
}
MOVING = ("relax.nn.max_pool2d", "relax.reshape")
TOPI = re.compile(r"(maximum|minimum)\d*$")  # what TVM's ONNX importer makes of Clip


def normalise(module: tvm.IRModule) -> tvm.IRModule:
    """Bring what TVM's importers return for a QDQ or fp32 model into the form lowering reads.

    Batch norms are folded and constants evaluated as `clean` does for fp32 modules, but for the
    ``R.dequantize`` of layers' weights: these are parameters while it runs.

    Parameters
    ----------
    module : tvm.IRModule
        ``main`` in one dataflow block, all weights constants.
    """
    module = relax.transform.CanonicalizeBindings()(module)
    weights: dict[str, np.ndarray] = {}
    module = clean(_Constants(weights).rewrite(module))
    module = _EarlyQuantize().rewrite(_Clips().rewrite(module))
    module = relax.transform.BindParams(
        "main", {name: tvm.runtime.tensor(array) for name, array in weights.items()}
    )(module)
    module = relax.transform.CanonicalizeBindings()(module)
    return relax.transform.DeadCodeElimination()(module)


@dataclass(frozen=True)
class Dequantized:
    """``(array - zero_point) * scale``, with both 0-d, or 1-d along ``axis``."""

    array: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int

    def to_float(self) -> np.ndarray:
        """The values, float32: in float64 first, so that a bias keeps all its bits."""
        scale, zero_point = (
            _along(v, self.array, self.axis) for v in (self.scale, self.zero_point)
        )
        steps = self.array.astype(np.float64) - zero_point
        return (steps * scale.astype(np.float64)).astype(np.float32)

    def transposed(self, axes: list[int]) -> Dequantized:
        """With its axes permuted."""
        moved = axes.index(self.axis % self.array.ndim)
        array = np.ascontiguousarray(self.array.transpose(axes))
        return Dequantized(array, self.scale, self.zero_point, moved)


class _Rewriter:
    """Emits ``main`` again, binding by binding."""

    def __init__(self):
        self.new: dict[relax.Var, object] = {}  # what each variable became

    def rewrite(self, module: tvm.IRModule) -> tvm.IRModule:
        """The module with a new ``main``."""
        main, self.bb = module["main"], relax.BlockBuilder()
        result = main.body.body
        parameters = list(main.params)
        with self.bb.function("main", parameters, attrs=dict(main.attrs or {})):
            with self.bb.dataflow():
                for block in main.body.blocks:
                    for binding in block.bindings:
                        self.new[binding.var] = self.binding(binding.var, binding.value)
                output = self.bb.emit_output(self.argument(result))
            self.bb.emit_func_output(output)
        new = module.clone()
        (function,) = self.bb.get().functions.values()
        function = self.finished(function).with_attr("global_symbol", "main")
        new["main"] = function
        return new

    def finished(self, function: relax.Function) -> relax.Function:
        """A hook for what is to be done to the whole function."""
        return function

    def binding(self, var: relax.Var, value):
        """What stands for `var`: a variable, or what is known of a constant."""
        return self.emit(self.replaced(value), var)

    def emit(self, value, like: relax.Var):
        """Emit under the name that it had."""
        return self.bb.emit(value, name_hint=like.name)

    def replaced(self, value):
        """An expression in terms of the new variables."""
        if isinstance(value, relax.Call):
            arguments = [self.argument(arg) for arg in value.args]
            return relax.Call(value.op, arguments, value.attrs, value.ty_args)
        if isinstance(value, relax.TupleGetItem):
            return relax.TupleGetItem(self.argument(value.tuple_value), value.index)
        return self.argument(value)

    def argument(self, expression):
        """An argument in terms of the new variables."""
        if isinstance(expression, relax.Var):
            return self.new.get(expression, expression)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self.argument(field) for field in expression.fields])
        return expression


class _Constants(_Rewriter):
    """Folds what depends on quantized constants; lifts weights into parameters, see `normalise`."""

    def __init__(self, weights: dict[str, np.ndarray]):
        super().__init__()
        self.weights = weights
        self.parameters: list[relax.Var] = []

    def binding(self, var: relax.Var, value):
        """Known constants are kept out of the new function until an operator needs them."""
        name = _operator(value)
        known = [self._known(arg) for arg in value.args] if name else []
        if name == "relax.reshape" and isinstance(known[0], np.ndarray):
            return relax.const(known[0].reshape([int(size) for size in var.ty.shape]))
        if name == "relax.quantize" and all(isinstance(k, np.ndarray) for k in known):
            return relax.const(quantize(*known, value.attrs))
        if name == "relax.dequantize" and all(isinstance(k, np.ndarray) for k in known):
            return Dequantized(known[0], *map(_flat, known[1:]), int(value.attrs["axis"]))
        if name == "relax.permute_dims" and isinstance(known[0], Dequantized):
            rank = known[0].array.ndim
            axes = value.attrs["axes"] or range(rank)[::-1]
            return known[0].transposed([int(axis) % rank for axis in axes])
        if name in FOLDED and all(isinstance(k, np.ndarray) for k in known):
            shape, dtype = [int(size) for size in var.ty.shape], str(var.ty.dtype)
            return relax.const(FOLDED[name](*known).reshape(shape).astype(dtype))
        if name in LAYERS and isinstance(known[WEIGHT], Dequantized):
            weight = self._weight(known[WEIGHT], var.name)
            arguments = [self.argument(value.args[0]), weight]
            return self.emit(relax.Call(value.op, arguments, value.attrs, value.ty_args), var)
        if name in ("relax.quantize", "relax.dequantize"):
            return self.emit(self._with_scalars(value), var)
        if isinstance(value, relax.Var) and isinstance(self.new.get(value), Dequantized):
            return self.new[value]
        return super().binding(var, value)

    def argument(self, expression):
        """Dequantized constants that are no layer's weights are read as float32."""
        argument = super().argument(expression)
        return relax.const(argument.to_float()) if isinstance(argument, Dequantized) else argument

    def finished(self, function: relax.Function) -> relax.Function:
        """With the weights as its last parameters."""
        parameters = [*function.params, *self.parameters]
        new = relax.Function(parameters, function.body, function.ret_ty)
        return new.with_attrs(function.attrs)

    def _known(self, expression):
        known = self.new.get(expression) if isinstance(expression, relax.Var) else expression
        return known.value.numpy() if isinstance(known, GenericConst) else known

    def _weight(self, weight: Dequantized, layer: str) -> relax.Expr:
        if str(weight.array.dtype) not in WEIGHT_DTYPES:
            return relax.const(weight.to_float())
        name = f"{layer}_weight_q{len(self.weights)}"
        parameter = relax.Var(name, relax.TensorType(weight.array.shape, str(weight.array.dtype)))
        self.weights[name] = weight.array
        self.parameters.append(parameter)
        constants = (relax.const(weight.scale), relax.const(weight.zero_point))
        call = R.dequantize(parameter, *constants, axis=weight.axis, out_dtype="float32")
        return self.bb.emit(call, name_hint=f"{layer}_weight")

    def _with_scalars(self, call: relax.Call) -> relax.Call:
        """One scale for a tensor is a scalar, whatever shape it came in."""
        data, *parameters = (self.argument(arg) for arg in call.args)
        arrays = [self._known(parameter) for parameter in parameters]
        if all(isinstance(array, np.ndarray) for array in arrays):
            parameters = [relax.const(_flat(array)) for array in arrays]
        return relax.Call(call.op, [data, *parameters], call.attrs, call.ty_args)


class _Clips(_Rewriter):
    """``R.clip`` for what bounds a tensor by constants: maximum, minimum, and both."""

    def __init__(self):
        super().__init__()
        self.bounds: dict[relax.Var, tuple] = {}  # clipped variable -> (source, low, high)

    def binding(self, var: relax.Var, value):
        """One clip for each bound; the first of two that follow each other is left to die."""
        found = self._bound(value)
        if found is None:
            return super().binding(var, value)
        source, low, high = found
        source = self.argument(source)
        if source in self.bounds:
            inner, before, after = self.bounds[source]
            # As the operators do it one after the other: the later bound decides.
            source, low, high = inner, min(max(before, low), high), min(max(after, low), high)
        is_relu = (low, high) == (0.0, np.inf)
        new = self.emit(R.nn.relu(source) if is_relu else R.clip(source, low, high), var)
        self.bounds[new] = (source, low, high)
        return new

    def _bound(self, value) -> tuple | None:
        """(source, low, high) of a maximum or minimum with a scalar constant."""
        if _operator(value) == "relax.call_tir" and isinstance(value.args[0], GlobalVar):
            match = TOPI.match(value.args[0].name_hint)
            name, args = match and match.group(1), value.args[1].fields
        else:
            name, args = (_operator(value) or "").removeprefix("relax."), getattr(value, "args", ())
        if name not in ("maximum", "minimum") or len(args) != 2:
            return None
        constant = args[1]
        if not isinstance(constant, GenericConst) or constant.value.numpy().size != 1:
            return None
        bound = float(constant.value.numpy().reshape(()))
        return (args[0], bound, np.inf) if name == "maximum" else (args[0], -np.inf, bound)


class _EarlyQuantize(_Rewriter):
    """Quantizes before operators that only choose or move values, as its result is the same.

    PT2E quantizes after a max pooling what a convolution computed: here the convolution stores
    integers then, and not floats for the pooling to read.
    """

    def rewrite(self, module: tvm.IRModule) -> tvm.IRModule:
        """Collects what each variable is bound to and how often it is read, first."""
        main = module["main"]
        bindings = [b for block in main.body.blocks for b in block.bindings]
        self.bound = {binding.var: binding.value for binding in bindings}
        self.reads: dict[relax.Var, int] = {}
        relax.analysis.post_order_visit(main.body, self._count)
        return super().rewrite(module)

    def binding(self, var: relax.Var, value):
        """A quantize, a dequantize, and the operators that were before it."""
        if _operator(value) == "relax.quantize" and value.args[1].value.numpy().size == 1:
            clip, movers, source = self._chain(value.args[0])
            if movers and _operator(self.bound.get(source)) != "relax.dequantize":
                value = self._moved(value, clip, movers, self.argument(source))
                return self.emit(value, var)
        return super().binding(var, value)

    def _chain(self, expression) -> tuple[relax.Call | None, list[relax.Call], relax.Expr]:
        """Clip and moving operators above an expression that nothing else reads, the last first."""
        clip, movers = None, []
        while self.reads.get(expression) == 1:
            call = self.bound.get(expression)
            if _operator(call) in MOVING:
                movers.append(call)
            elif _operator(call) == "relax.clip" and clip is None and not movers:
                clip = call
            else:
                break
            expression = call.args[0]
        return clip, movers, expression

    def _moved(self, quantize: relax.Call, clip, movers: list[relax.Call], data) -> relax.Call:
        if clip is not None:
            data = self.bb.emit(relax.Call(clip.op, [data, *clip.args[1:]], clip.attrs))
        steps, attrs = quantize.args[1:], quantize.attrs
        data = self.bb.emit(relax.Call(quantize.op, [data, *steps], attrs))
        data = self.bb.emit(R.dequantize(data, *steps, axis=int(attrs["axis"])))
        for call in reversed(movers):
            data = self.bb.emit(relax.Call(call.op, [data, *call.args[1:]], call.attrs))
        return relax.Call(quantize.op, [data, *steps], attrs)

    def _count(self, expression) -> None:
        operands = []
        if isinstance(expression, relax.Call):
            operands = expression.args
        elif isinstance(expression, relax.Tuple):
            operands = expression.fields
        elif isinstance(expression, relax.TupleGetItem):
            operands = [expression.tuple_value]
        elif isinstance(expression, relax.SeqExpr):
            operands = [expression.body]
        for operand in operands:
            if isinstance(operand, relax.Var):
                self.reads[operand] = self.reads.get(operand, 0) + 1


def quantize(array: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, attrs) -> np.ndarray:
    """``R.quantize`` of a constant: divided in float32, halves to the even integer, saturated."""
    axis, dtype = int(attrs["axis"]), str(attrs["out_dtype"])
    scale, zero_point = (_along(_flat(v), array, axis) for v in (scale, zero_point))
    steps = np.rint(array.astype(np.float32) / scale.astype(np.float32)) + zero_point
    ends = np.iinfo(dtype)
    return np.clip(steps, ends.min, ends.max).astype(dtype)


def _along(values: np.ndarray, array: np.ndarray, axis: int) -> np.ndarray:
    """Values for each index of an axis, in a shape that broadcasts over the array."""
    if values.ndim == 0:
        return values
    shape = [1] * array.ndim
    shape[axis] = -1
    return values.reshape(shape)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(()) if values.size == 1 else values.reshape(-1)


def _operator(value) -> str | None:
    """Name of the operator that an expression calls; None for other expressions."""
    is_call = isinstance(value, relax.Call) and isinstance(value.op, Op)
    return value.op.name if is_call else None
