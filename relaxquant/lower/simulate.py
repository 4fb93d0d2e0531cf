"""The float network that computes what the integer kernels do, number by number.

Each layer of the fused graph, which kernels are made of otherwise, becomes float operators on whole
numbers: what a kernel stores, less its zero point. They do what the kernel is specified to do, with
its own multipliers and bounds, in its order (`kernels.epilogue`); `whole_floats` says why that is
exact. No kernel of this library has a part in it, so that stock TVM computes a second opinion.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax
from tvm.relax import op as R

from ..kernels import resize, softmax
from ..kernels.registry import AUTO
from ..kernels.spec import Window
from .fake_quantize import fake_quantized
from .graph import Graph, Node, Value
from .layout import stays_with_tvm
from .prepare import prepared
from .read import Reader
from .readers import TO_CHANNELS_FIRST, TO_CHANNELS_LAST
from .realize import bounds, conv_weights
from .tvm_calls import tvm_call
from .whole_floats import WholeFloats

NEVER_MET = 1024.0  # larger than any pixel of 8 bits times its weight


def simulate(qmod: tvm.IRModule) -> tvm.IRModule:
    """Write a QDQ module as the float network that computes what its integer kernels do.

    Parameters
    ----------
    qmod : tvm.IRModule
        QDQ Relax, from `relaxquant.quantize` or a frontend; not changed.

    Returns
    -------
    tvm.IRModule
        Relax without ``R.quantize`` and ``R.dequantize`` that stock TVM compiles. Quantized
        activations are whole numbers of their steps in float32, equal to the integers that
        `relaxquant.compile` stores less their zero points; what layers that multiply integers give
        in float is equal too. The caller gives and takes what `qmod` does.

    Raises
    ------
    ModelError
        If the module's structure is not supported.

    Notes
    -----
    Float layers compute the same but for the order of their sums, which is the compiler's; what is
    quantized after them can be one step away where it lies next to a half. Activations with a scale
    for each channel, which kernels do not take, are rounded in real units.

    The integer kernels are those of ``requantize="float"``. Where an int32 sum of bytes overflows,
    which takes 66 000 products of the largest ones, kernels wrap around and this does not.

    What relay.quantize returned with ``do_simulation=True``: ``simulated_quantize`` in place of
    integers (TVM's ``src/relay/quantize/quantize.cc``, Relay, removed).
    """
    reader, graph = prepared(qmod, AUTO)
    module = _Simulator(reader, graph).emit()
    module = relax.transform.CanonicalizeBindings()(module)
    return relax.transform.DeadCodeElimination()(module)


class _Simulator:
    """Builds the float module; one use."""

    def __init__(self, reader: Reader, graph: Graph):
        self.reader, self.graph = reader, graph
        self.builder = relax.BlockBuilder()
        self.floats = WholeFloats(self.builder)
        # Of a quantized value its steps; of the caller's integers these, maybe in float32.
        self.variables: dict[Value, relax.Expr] = {}
        self.batch = reader.function.params[0].ty.shape[0]

    def emit(self) -> tvm.IRModule:
        """Emit ``main``."""
        parameters = [relax.Var(p.name, p.ty) for p in self.reader.function.params]
        self.variables.update(zip(self.graph.inputs, parameters, strict=True))
        with self.builder.function("main", parameters):
            with self.builder.dataflow():
                for node in self.graph.nodes:
                    self.variables[node.output] = self.builder.emit(
                        self._simulated(node), name_hint=node.label
                    )
                results = [self.variables[value] for value in self.graph.outputs]
                output = relax.Tuple(results) if self.graph.returns_tuple else results[0]
                output = self.builder.emit_output(output)
            self.builder.emit_func_output(output)
        return self.builder.get()

    def _simulated(self, node: Node) -> relax.Expr:
        if not stays_with_tvm(node):
            return _SIMULATED[node.op](self, node)
        call = tvm_call(node, self.reader, self.variables)
        is_call = isinstance(call, relax.Call)
        return fake_quantized(self.builder, call, node.label) if is_call else call

    def conv2d(self, node: Node) -> relax.Expr:
        """`kernels.epilogue`: sums, multiplier, residual, clip, rounding."""
        weights, data = conv_weights(node), node.inputs[0]
        bias = self._by_channel(weights.bias, node.output)

        def product(x, weight):
            return self._convolved(node, x, weight)

        if node.integer:
            value = self.floats.sums(
                product,
                self._numbers(data),
                weights.centered,
                _largest(data),
                bias,
                node.narrow,
            )
            value = self.floats.scaled(value, self._by_channel(weights.multiplier, node.output))
        else:
            value = self.builder.emit(product(self._numbers(data), relax.const(weights.weight)))
            value = self.builder.emit(R.add(value, relax.const(bias, "float32")))
        if node.residual:
            residual = self._numbers(node.residual)
            value = self.floats.multiply_add(residual, weights.residual_scale, value)
        return self._stored(node, value)

    def max_pool2d(self, node: Node) -> relax.Expr:
        """`kernels.pool2d`."""
        window = node.window
        return R.nn.max_pool2d(
            self._numbers(node.inputs[0]),
            window.kernel,
            window.strides,
            window.padding,
            window.dilation,
        )

    def avg_pool2d(self, node: Node) -> relax.Expr:
        """`kernels.pool2d`: the sum is a convolution by ones."""
        (data,), window, output = node.inputs, node.window, node.output
        ones = np.ones((data.shape[1], 1, *window.kernel), np.int64)

        def product(x, weight):
            return _conv2d(x, weight, window, groups=len(ones))

        if data.is_quantized:
            value = self.floats.sums(product, self._numbers(data), ones, _largest(data))
        else:
            value = self.builder.emit(product(self._numbers(data), relax.const(ones, "float32")))
        if node.count_include_pad:
            counts = np.full((1, 1), window.kernel[0] * window.kernel[1])
        else:
            counts = np.outer(*(_taps(data.shape[2 + axis], window, axis) for axis in (0, 1)))
        scale = np.float32(data.scale / output.scale) / counts.astype(np.float32)
        value = self._shaped(self.floats.scaled(value, scale), output)
        return self._stored(node, value)

    def add(self, node: Node) -> relax.Expr:
        """`kernels.elementwise`."""
        (a, b), scale = node.inputs, node.output.scale
        value = self.floats.scaled(self._numbers(a), a.scale / scale)
        value = self.floats.multiply_add(self._numbers(b), b.scale / scale, value)
        return self._stored(node, value)

    def mul(self, node: Node) -> relax.Expr:
        """`kernels.elementwise`."""
        a, b = node.inputs
        value = self.builder.emit(R.multiply(self._numbers(a), self._numbers(b)))
        return self._stored(node, self.floats.scaled(value, a.scale * b.scale / node.output.scale))

    def concat(self, node: Node) -> relax.Expr:
        """`kernels.elementwise`: each input is brought to the output's steps."""
        parts = [self.builder.emit(self._converted(node, value)) for value in node.inputs]
        return R.concat(parts, axis=1)

    def convert(self, node: Node) -> relax.Expr:
        """`kernels.convert`; a layout is nothing here."""
        (data,), output = node.inputs, node.output
        if node.op == "convert" and data.same_steps(output):
            return self.variables[data]
        return self._converted(node, data)

    def store(self, node: Node) -> relax.Expr:
        """The caller's integers, in the layout that the caller has."""
        (data,), output = node.inputs, node.output
        value = self.builder.emit(self._converted(node, data))
        if output.dtype != "float32":
            zero_point = relax.const(np.float32(output.zero_point))
            value = self.builder.emit(R.add(value, zero_point))
            value = self.builder.emit(R.astype(value, output.dtype))
        return R.permute_dims(value, TO_CHANNELS_LAST) if output.channels_last else value

    def view(self, node: Node) -> relax.Expr:
        """The same numbers under another shape."""
        data = self.variables[node.inputs[0]]
        if node.output.channels_last:
            return R.permute_dims(self._as_float(data), TO_CHANNELS_FIRST)
        return self._shaped(data, node.output)

    def pad(self, node: Node) -> relax.Expr:
        """`kernels.resize`."""
        top, left, bottom, right = node.window.padding
        widths = (0, 0, 0, 0, top, bottom, left, right)
        return R.nn.pad(self._numbers(node.inputs[0]), widths)

    def table(self, node: Node) -> relax.Expr:
        """`kernels.table`."""
        data, output = node.inputs[0], node.output
        zero_points = data.zero_point, output.zero_point
        entries = node.table.astype(np.float32) - np.float32(zero_points[1])
        first = np.iinfo(data.dtype).min
        offset = relax.const(np.float32(zero_points[0] - first))
        return self._looked_up(entries, self.builder.emit(R.add(self._numbers(data), offset)))

    def softmax(self, node: Node) -> relax.Expr:
        """`kernels.softmax`: exponentials of differences to the largest."""
        emit, (data,), output = self.builder.emit, node.inputs, node.output
        steps = self._numbers(data)
        largest = emit(R.max(steps, axis=1, keepdims=True))
        powers = softmax.exponentials(data.scale)
        value = emit(self._looked_up(powers, emit(R.subtract(largest, steps))))
        total = emit(R.sum(value, axis=1, keepdims=True))
        factor = emit(R.divide(relax.const(np.float32(1 / output.scale)), total))
        return self._stored(node, emit(R.multiply(value, factor)))

    def resize(self, node: Node) -> relax.Expr:
        """`kernels.resize`: pixels are copied, or weighed as TFLite does."""
        data, output = node.inputs[0], node.output
        linear, mode = node.resize
        sizes = list(zip(data.shape[2:], output.shape[2:], strict=True))
        image = self._numbers(data)
        if not linear:
            (rows,), (columns,) = (resize.nearest(*size, mode) for size in sizes)
            return _taken(self.builder, image, rows, columns)
        axes = [resize.between(*size, mode, output.signed) for size in sizes]
        middle = 128 if output.signed else 0  # where the model's integers have their 0
        offset = relax.const(np.float32(data.zero_point - middle))
        image = self.builder.emit(R.add(image, offset))
        between = self._between_signed if output.signed else self._between_unsigned
        return R.subtract(self.builder.emit(between(image, *axes)), offset)

    def _between_signed(self, image, vertical: list, horizontal: list) -> relax.Expr:
        """Sums of products by weights that count in 1024ths are exact in float64."""
        emit, one, total = self.builder.emit, 1 << resize.WEIGHT_BITS, None
        image = emit(R.astype(image, "float64"))
        for rows, down in _sides(vertical, one):
            for columns, right in _sides(horizontal, one):
                weight = np.outer(down, right) / one**2
                pixels = emit(_taken(self.builder, image, rows, columns))
                pixels = emit(R.multiply(pixels, relax.const(weight, "float64")))
                total = pixels if total is None else emit(R.add(total, pixels))
        return R.astype(self.floats.rounded_half_away(total), "float32")

    def _between_unsigned(self, image, vertical: list, horizontal: list) -> relax.Expr:
        """Each product and sum is rounded to float32."""
        emit, total = self.builder.emit, None
        for columns, right in _sides(horizontal, np.float32(1)):
            for rows, down in _sides(vertical, np.float32(1)):
                pixels = emit(_taken(self.builder, image, rows, columns))
                pixels = self.floats.scaled(pixels, down[:, None])
                # A bound that is never met keeps LLVM from fusing the product with the sum.
                pixels = self.floats.clipped(
                    self.floats.scaled(pixels, right), -NEVER_MET, NEVER_MET
                )
                total = pixels if total is None else emit(R.add(total, pixels))
        return R.floor(emit(R.add(total, relax.const(np.float32(0.5)))))

    def _convolved(self, node: Node, x, weight) -> relax.Expr:
        """The product of a convolution or dense layer, with a constant for its weights."""
        if len(node.output.shape) == 4:
            return _conv2d(x, weight, node.window, node.groups)
        array = weight.value.numpy()
        array = array.reshape(len(array), -1).T
        x = self.builder.emit(R.reshape(x, (self.batch, len(array))))
        return R.matmul(x, relax.const(array, str(array.dtype)))

    def _converted(self, node: Node, data: Value) -> relax.Expr:
        """An input in the output's steps."""
        value = self.floats.scaled(self._numbers(data), data.scale / node.output.scale)
        return self._stored(node, value)

    def _stored(self, node: Node, value) -> relax.Expr:
        """What is stored of floats in the output's units: clipped and, if quantized, rounded."""
        value = self.floats.clipped(value, *bounds(node.output, node.clip))
        if node.output.dtype == "float32":
            return value
        return self.floats.rounded(value, node.output.rounding)

    def _numbers(self, value: Value) -> relax.Expr:
        """Steps of a quantized value or of the caller's integers; a float value itself."""
        numbers = self.variables[value]
        if not value.foreign or value.dtype == "float32":
            return numbers
        zero_point = relax.const(np.float32(value.zero_point))
        return self.builder.emit(R.subtract(self._as_float(numbers), zero_point))

    def _as_float(self, x) -> relax.Expr:
        """The caller's numbers in float32."""
        return x if x.ty.dtype == "float32" else self.builder.emit(R.astype(x, "float32"))

    def _looked_up(self, entries: np.ndarray, index) -> relax.Expr:
        index = self.builder.emit(R.astype(index, "int32"))
        return R.take(relax.const(entries, "float32"), index, axis=0)

    def _shaped(self, x, output: Value) -> relax.Expr:
        """``x`` in the shape of ``output``."""
        return self.builder.emit(R.reshape(x, (self.batch, *output.shape[1:])))

    @staticmethod
    def _by_channel(vector: np.ndarray, output: Value) -> np.ndarray:
        """(C,) in a form that broadcasts over ``output``."""
        return vector.reshape(-1, *[1] * (len(output.shape) - 2))


def _largest(data: Value) -> int:
    """Largest magnitude of a quantized value's steps."""
    if data.dtype == "int16":
        return data.largest
    return max(data.zero_point, data.largest - data.zero_point)


def _conv2d(x, weight, window: Window, groups: int) -> relax.Expr:
    return R.nn.conv2d(
        x,
        weight,
        strides=window.strides,
        padding=window.padding,
        dilation=window.dilation,
        groups=groups,
    )


def _taps(size: int, window: Window, axis: int) -> np.ndarray:
    """Rows (or columns) of each window that lie inside an image of so many: (outputs,)."""
    padding = window.padding[axis], window.padding[2 + axis]
    taps = window.dilation[axis] * np.arange(window.kernel[axis]) - padding[0]
    reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
    first = np.arange(0, size + sum(padding) - reach + 1, window.strides[axis])
    at = first[:, None] + taps
    return ((at >= 0) & (at < size)).sum(axis=1)


def _taken(bb: relax.BlockBuilder, image, rows: np.ndarray, columns: np.ndarray) -> relax.Expr:
    """The pixels of an image (N, C, H, W) in some rows and columns."""
    image = bb.emit(R.take(image, relax.const(rows, "int32"), axis=2))
    return R.take(image, relax.const(columns, "int32"), axis=3)


def _sides(axis: list[np.ndarray], one):
    """Both indices of `kernels.resize.between`, with their weights."""
    indices, weight = axis
    return [(indices[:, 0], one - weight), (indices[:, 1], weight)]


_SIMULATED: dict[str, Callable[[_Simulator, Node], relax.Expr]] = {
    "conv2d": _Simulator.conv2d,
    "max_pool2d": _Simulator.max_pool2d,
    "avg_pool2d": _Simulator.avg_pool2d,
    "add": _Simulator.add,
    "mul": _Simulator.mul,
    "table": _Simulator.table,
    "softmax": _Simulator.softmax,
    "pad": _Simulator.pad,
    "resize": _Simulator.resize,
    "concat": _Simulator.concat,
    "view": _Simulator.view,
    "store": _Simulator.store,
    **dict.fromkeys(("clip", "quantize", "convert", "load"), _Simulator.convert),
}
