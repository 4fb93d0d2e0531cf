"""Imported NHWC networks in NCHW: every image is transposed once, where it enters and leaves.

A transposed form of each rank-4 tensor is made when it is first asked for; operators that know
axes are rewritten to it, those that compute element by element take whatever they are given.
Everything else keeps the model's own layout, between two transposes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst, Op
from tvm.relax import op as R

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
UNNAMED = re.compile(r"lv\d*")

REWRITERS: dict[str, Callable] = {}
ELEMENTWISE = frozenset(
    f"relax.{name}"
    for name in (
        "abs",
        "add",
        "clip",
        "dequantize",
        "divide",
        "exp",
        "log",
        "maximum",
        "minimum",
        "multiply",
        "negative",
        "nn.leakyrelu",
        "nn.relu",
        "nn.relu6",
        "power",
        "quantize",
        "rsqrt",
        "sigmoid",
        "sqrt",
        "square",
        "subtract",
        "tanh",
    )
)


def channels_first(module: tvm.IRModule) -> tvm.IRModule:
    """``main`` of an imported module with its images in NCHW, and its interface as it was."""
    return _Rewriter(module["main"]).module()


def rewrites(*operators: str) -> Callable:
    """Register the decorated method for the operators ``relax.<name>``.

    It returns the expression and whether that is in NCHW, or None where it does not apply.
    """

    def add(function: Callable) -> Callable:
        REWRITERS.update({f"relax.{name}": function for name in operators})
        return function

    return add


class _Rewriter:
    """Copies ``main`` binding by binding; one use."""

    def __init__(self, function: relax.Function):
        self.function = function
        self.bb = relax.BlockBuilder()
        self.bound: dict = {}  # variable of the old function -> what it is bound to
        self.last: dict = {}  # variable of the old function -> the new one as it was, NHWC
        self.first: dict = {}  # the same in NCHW
        self.names = _names(function)

    def module(self) -> tvm.IRModule:
        parameters = [relax.Var(p.name, p.ty) for p in self.function.params]
        self.last.update(zip(self.function.params, parameters, strict=True))
        with self.bb.function("main", parameters):
            with self.bb.dataflow():
                for block in self.function.body.blocks:
                    for binding in block.bindings:
                        self.bound[binding.var] = binding.value
                        self._copy(binding.var, binding.value)
                output = self.bb.emit_output(self.plain(self.function.body.body))
            self.bb.emit_func_output(output)
        return relax.transform.DeadCodeElimination()(self.bb.get())

    def _copy(self, var, value) -> None:
        if isinstance(value, relax.Var) or not isinstance(value, relax.Call):
            for known in (self.first, self.last):
                if isinstance(value, relax.Var) and value in known:
                    known[var] = known[value]
            if not isinstance(value, relax.Var):
                self.last[var] = self.emit(self.plain(value), var.name)
            return
        rewritten = self._rewritten(var, value)
        if rewritten is None:
            arguments = [self.plain(argument) for argument in value.args]
            rewritten = relax.Call(value.op, arguments, value.attrs, value.ty_args), False
        expression, is_first = rewritten
        name = self.names.get(var, var.name)
        (self.first if is_first else self.last)[var] = self.emit(expression, name)

    def _rewritten(self, var, call):
        if not isinstance(call.op, Op):
            return None
        if call.op.name in ELEMENTWISE:
            return _elementwise(self, var, call)
        rewriter = REWRITERS.get(call.op.name)
        return rewriter(self, var, call) if rewriter else None

    def emit(self, expression, name: str = ""):
        """A variable bound to ``expression``."""
        return self.bb.emit(expression, name_hint=name)

    def plain(self, expression):
        """An old expression in terms of new variables, in the layout it had."""
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self.plain(field) for field in expression.fields])
        if isinstance(expression, relax.TupleGetItem):
            return relax.TupleGetItem(self.plain(expression.tuple_value), expression.index)
        if isinstance(expression, relax.Call):
            arguments = [self.plain(argument) for argument in expression.args]
            return relax.Call(expression.op, arguments, expression.attrs, expression.ty_args)
        if not isinstance(expression, relax.Var):
            return expression
        if expression not in self.last:
            transposed = R.permute_dims(self.first[expression], TO_LAST)
            self.last[expression] = self.emit(transposed, f"{expression.name}_nhwc")
        return self.last[expression]

    def nchw(self, expression):
        """A rank-4 activation in NCHW."""
        if expression not in self.first:
            transposed = R.permute_dims(self.plain(expression), TO_FIRST)
            self.first[expression] = self.emit(transposed, f"{expression.name}_nchw")
        return self.first[expression]

    def value_of(self, expression):
        """What an expression is bound to, itself if it is no variable."""
        while isinstance(expression, relax.Var) and expression in self.bound:
            expression = self.bound[expression]
        return expression


def _names(function: relax.Function) -> dict:
    """Names for variables that have none of their own, after the tensor that they help compute."""
    names, unnamed = {}, []
    for block in function.body.blocks:
        for binding in block.bindings:
            if UNNAMED.fullmatch(binding.var.name):
                unnamed.append(binding)
                continue
            tensor = binding.var.name.split(";")[0]
            for each in unnamed:
                if isinstance(each.value, relax.Call) and isinstance(each.value.op, Op):
                    operator = each.value.op.name.split(".")[-1]
                    names[each.var] = f"{tensor}/{operator}"
            unnamed = []
    return names


def rank_of(expression) -> int:
    """Rank of a tensor; -1 of what is none."""
    return expression.ty.ndim if isinstance(expression.ty, relax.TensorType) else -1


def _is_call(expression, name: str) -> bool:
    return isinstance(expression, relax.Call) and expression.op == Op.get(f"relax.{name}")


def _elementwise(to: _Rewriter, var, call):
    """An operator on elements: constants are transposed with the activations."""
    if rank_of(var) != 4:
        return _folded_constant(to, call)
    if call.op.name in ("relax.quantize", "relax.dequantize"):
        if isinstance(to.value_of(call.args[0]), GenericConst):
            return None  # weights: their reader transposes them
        arguments = [to.nchw(call.args[0]), *call.args[1:]]
        return relax.Call(call.op, arguments, call.attrs, call.ty_args), True
    arguments = []
    for argument in call.args:
        constant = _constant(to, argument)
        if constant is not None:
            arguments.append(constant)
        elif rank_of(argument) == 4:
            arguments.append(to.nchw(argument))
        elif isinstance(argument, relax.Var) and rank_of(argument) > 0:
            return None
        else:
            arguments.append(argument)
    return relax.Call(call.op, arguments, call.attrs, call.ty_args), True


def _folded_constant(to: _Rewriter, call):
    """``dequantize(permute_dims(constant))`` without the operator in between."""
    source = to.value_of(call.args[0]) if call.args else None
    if not _is_call(call, "dequantize") or not _is_call(source, "permute_dims"):
        return None
    constant = to.value_of(source.args[0])
    if not isinstance(constant, GenericConst):
        return None
    axes = [int(axis) for axis in source.attrs["axes"]]
    array = np.ascontiguousarray(constant.value.numpy().transpose(axes))
    arguments = [relax.const(array), *call.args[1:]]
    return relax.Call(call.op, arguments, call.attrs, call.ty_args), False


def _constant(to: _Rewriter, expression):
    """A constant operand, dequantized or not, as it broadcasts over NCHW; None if it is none."""
    value = to.value_of(expression)
    if isinstance(value, GenericConst):
        return relax.const(_broadcast_form(value.value.numpy()))
    if not _is_call(value, "dequantize"):
        return None
    constant = to.value_of(value.args[0])
    if not isinstance(constant, GenericConst):
        return None
    array = constant.value.numpy()
    scale, zero_point = value.args[1:3]
    is_last = int(value.attrs["axis"]) % max(array.ndim, 1) == array.ndim - 1
    if scale.value.numpy().size > 1 and not is_last:
        return None
    array = _broadcast_form(array)
    axis = 1 if array.ndim == 4 else 0
    return to.emit(R.dequantize(relax.const(array), scale, zero_point, axis=axis))


def _broadcast_form(array: np.ndarray) -> np.ndarray:
    """What broadcasts over the last axes of NHWC, as it broadcasts over NCHW."""
    if array.size == 1:
        return array.reshape(())
    full = array.reshape((1,) * (4 - array.ndim) + array.shape)
    return np.ascontiguousarray(full.transpose(TO_FIRST))


@rewrites("nn.conv2d")
def _conv2d(to: _Rewriter, var, call):
    attrs = call.attrs
    kernel = attrs["kernel_layout"]
    if attrs["data_layout"] != "NHWC" or kernel not in ("HWIO", "HWOI"):
        return None
    weight = _oihw(to, call.args[1], kernel)
    if weight is None:
        return None
    settings = {name: attrs[name] for name in ("strides", "padding", "dilation", "groups")}
    return R.nn.conv2d(to.nchw(call.args[0]), weight, **_plain(settings)), True


def _plain(settings: dict) -> dict:
    """Attributes as Python numbers and lists."""
    return {
        name: value if isinstance(value, int | bool) else [int(v) for v in value]
        for name, value in settings.items()
    }


def _oihw(to: _Rewriter, expression, layout: str):
    """Constant weights in OIHW, dequantized along the output channels if they are integers."""
    order = [layout.index(axis) for axis in "OIHW"]
    value = to.value_of(expression)
    shape = None
    if _is_call(value, "reshape"):  # of depthwise weights with one scale a channel
        shape, value = [int(size) for size in expression.ty.shape], to.value_of(value.args[0])
    quantized = value if _is_call(value, "dequantize") else None
    constant = to.value_of(value if quantized is None else value.args[0])
    if not isinstance(constant, GenericConst):
        return None
    array = constant.value.numpy()
    array = np.ascontiguousarray(array.reshape(shape or array.shape).transpose(order))
    if quantized is None:
        return relax.const(array)
    return to.emit(R.dequantize(relax.const(array), *quantized.args[1:3], axis=0))


@rewrites("nn.max_pool2d", "nn.avg_pool2d")
def _pool2d(to: _Rewriter, var, call):
    if call.attrs["layout"] != "NHWC":
        return None
    names = ("pool_size", "strides", "padding", "dilation", "ceil_mode", "count_include_pad")
    settings = _plain({name: call.attrs[name] for name in names})
    operator = R.nn.max_pool2d if call.op.name.endswith("max_pool2d") else R.nn.avg_pool2d
    return operator(to.nchw(call.args[0]), **settings), True


@rewrites("image.resize2d")
def _resize2d(to: _Rewriter, var, call):
    attrs = call.attrs
    if attrs["layout"] != "NHWC":
        return None
    names = ("method", "coordinate_transformation_mode", "rounding_method")
    settings = {name: str(attrs[name]) for name in names}
    return R.image.resize2d(to.nchw(call.args[0]), call.args[1], layout="NCHW", **settings), True


@rewrites("concat")
def _concat(to: _Rewriter, var, call):
    if rank_of(var) != 4:
        return None
    fields = [to.nchw(field) for field in _fields(to, call.args[0])]
    return R.concat(fields, _moved(call.attrs["axis"])), True


def _fields(to: _Rewriter, expression) -> list:
    return list(to.value_of(expression).fields)


def _moved(axis) -> int:
    """An axis of NHWC in NCHW."""
    return TO_FIRST.index(int(axis) % 4)


@rewrites("mean", "sum", "max", "min")
def _reduce(to: _Rewriter, var, call):
    if rank_of(call.args[0]) != 4 or call.attrs["axis"] is None:
        return None
    axes = [_moved(axis) for axis in call.attrs["axis"]]
    keep = bool(call.attrs["keepdims"])
    if not keep and sorted(axes) != [2, 3]:
        return None
    operator = getattr(R, call.op.name.removeprefix("relax."))
    return operator(to.nchw(call.args[0]), axes, keep), keep


@rewrites("nn.softmax")
def _softmax(to: _Rewriter, var, call):
    if rank_of(var) != 4:
        return None
    return R.nn.softmax(to.nchw(call.args[0]), _moved(call.attrs["axis"])), True


@rewrites("nn.pad")
def _pad(to: _Rewriter, var, call):
    if rank_of(var) != 4:
        return None
    pairs = np.reshape([int(width) for width in call.attrs["pad_width"]], (4, 2))
    widths = [int(width) for width in pairs[list(TO_FIRST)].reshape(-1)]
    value, mode = float(call.attrs["pad_value"]), str(call.attrs["pad_mode"])
    return R.nn.pad(to.nchw(call.args[0]), widths, mode, value), True


@rewrites("reshape", "squeeze")
def _reshape(to: _Rewriter, var, call):
    """Between images of one pixel and vectors no axis but the channels has a size."""
    shapes = [[int(size) for size in each.ty.shape] for each in (call.args[0], var)]
    given, wanted = shapes
    if len(given) == 4 and len(wanted) == 2 and given == [wanted[0], 1, 1, wanted[1]]:
        return R.reshape(to.nchw(call.args[0]), wanted), False
    if len(wanted) == 4 and len(given) == 2 and wanted == [given[0], 1, 1, given[1]]:
        return R.reshape(to.plain(call.args[0]), [*given, 1, 1]), True
    if call.op.name == "relax.squeeze":
        return R.reshape(to.plain(call.args[0]), wanted), False
    return None
