"""Quantization before operators that only choose or move values."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax import op as R

from .rewriter import Rewriter, is_scalar, operator_of

MOVING = ("relax.nn.max_pool2d", "relax.reshape")


class EarlyQuantize(Rewriter):
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
        if operator_of(value) == "relax.quantize" and is_scalar(value.args[1]):
            clip, movers, source = self._chain(value.args[0])
            if movers and operator_of(self.bound.get(source)) != "relax.dequantize":
                value = self._moved(value, clip, movers, self.argument(source))
                return self.emit(value, var)
        return super().binding(var, value)

    def _chain(self, expression) -> tuple[relax.Call | None, list[relax.Call], relax.Expr]:
        """Clip and moving operators above an expression that nothing else reads, the last first."""
        clip, movers = None, []
        while self.reads.get(expression) == 1:
            call = self.bound.get(expression)
            if operator_of(call) in MOVING:
                movers.append(call)
            elif operator_of(call) == "relax.clip" and clip is None and not movers:
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
