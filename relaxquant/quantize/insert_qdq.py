"""Step 3: write quantize/dequantize pairs and integer weights into the module (QDQ Relax)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import IRModule, relax
from tvm.relax import op as R

from ..qdq import round_before
from .annotate import Annotation
from .config import QConfig, QuantizeError
from .graph import Node, rebuild
from .int32_budget import find_budget
from .operators import LAYERS
from .scales import Codes, Range, activation_codes
from .weights import bias_safe_scale, quantize_weight, weight_levels


def insert_qdq(
    mod: IRModule, annotation: Annotation, config: QConfig, ranges: Mapping[int, Range]
) -> IRModule:
    """Turn an annotated and calibrated fp32 module into QDQ Relax.

    Every tensor of `annotation` gets one ``R.quantize`` and one ``R.dequantize`` after its
    producer, and every operator that reads it reads the latter; the function's result stays float.
    What stands before it says how it is rounded and which bits it uses: see `relaxquant.qdq`.
    Weights of quantized layers become ``R.dequantize`` of an int8 or int16 constant; biases stay
    float additions. A layer's sum of 8 or 16 bits is one more pair, before the bias, whose scale
    is that of the sum.

    Parameters
    ----------
    mod : IRModule
        The fp32 module that was annotated; not changed.
    annotation : Annotation
        What `annotate` said of it.
    config : QConfig
        `weight_granularity`, `weight_scale`, `nbit_weight`, `layer_bits`, `ternary`,
        `reduce_range`, `rounding`, `round_for_shift`, `nbit_activation` and `dtype_activation` act
        here.
    ranges : mapping of int to Range
        What `calibrate` found.

    Returns
    -------
    IRModule
        The QDQ module, which TVM's own pipeline can build, too.

    Raises
    ------
    QuantizeError
        If a weight is NaN or infinite.
    """
    writer = _Writer(annotation, config, ranges)
    return rebuild(mod, annotation.graph, reads=writer.reads, rewrite=writer.rewrite)


class _Writer:
    """The two hooks of `rebuild`."""

    def __init__(self, annotation: Annotation, config: QConfig, ranges: Mapping[int, Range]):
        self.annotation, self.config, self.ranges = annotation, config, ranges
        self.budget = find_budget(annotation, config, ranges)
        self.weight_scales: dict[int, np.ndarray] = {}  # of the layers written so far, (channels,)

    def reads(self, bb: relax.BlockBuilder, node: Node, var: relax.Var) -> relax.Var:
        """Emit the pairs of `node`, if it has any; return what operators read."""
        if node.index in self.weight_scales and self.config.sum_bits < 32:
            var = self._narrow_sum(bb, node, var)
        tensor = self.annotation.tensors.get(node.index)
        if tensor is None:
            return var
        codes = self._codes(node.index)
        if tensor.is_calibrated and node.op != "input":
            var = round_before(bb, var, codes.scale, self.config.activation_rounding, node.name)
        if tensor.is_calibrated and not codes.fill_dtype:
            var = bb.emit(R.clip(var, *codes.bounds), name_hint=f"{node.name}_clip")
        scale = relax.const(codes.scale)
        zero = relax.const(np.array(codes.zero_point, codes.dtype))
        quantized = bb.emit(
            R.quantize(var, scale, zero, out_dtype=codes.dtype), name_hint=f"{node.name}_q"
        )
        dequantized = R.dequantize(quantized, scale, zero, out_dtype="float32")
        return bb.emit(dequantized, name_hint=f"{node.name}_dq")

    def rewrite(self, bb: relax.BlockBuilder, node: Node, call: relax.Call) -> relax.Expr:
        """Give a quantized layer its integer weights."""
        if node.index not in self.annotation.layers:
            return call
        quantized, scale = self._weight(node)
        parameters = (relax.const(scale), relax.const(np.zeros(scale.shape, quantized.dtype)))
        weight = R.dequantize(relax.const(quantized), *parameters, axis=LAYERS[node.op])
        weight = bb.emit(weight, name_hint=f"{node.name}_weight")
        self.weight_scales[node.index] = np.broadcast_to(scale, quantized.shape[LAYERS[node.op]])
        return relax.Call(call.op, [call.args[0], weight], call.attrs, call.ty_args)

    def _narrow_sum(self, bb: relax.BlockBuilder, node: Node, var: relax.Var) -> relax.Var:
        """A layer's sum as an integer of `QConfig.sum_bits` holds it, saturated."""
        data_scale = self._codes(node.inputs[0]).scale
        scale = (data_scale * self.weight_scales[node.index]).astype(np.float32)
        dtype = f"int{self.config.sum_bits}"
        parameters = (relax.const(scale), relax.const(np.zeros(scale.shape, dtype)))
        narrow = R.quantize(var, *parameters, axis=1, out_dtype=dtype)
        narrow = bb.emit(narrow, name_hint=f"{node.name}_{dtype}")
        return bb.emit(R.dequantize(narrow, *parameters, axis=1), name_hint=f"{node.name}_sum")

    def _codes(self, index: int) -> Codes:
        # Of the tensor it shares the scale with, type and zero point too.
        tensor = self.annotation.tensors[self.annotation.tensors[index].shares]
        largest = self.budget.largest.get(tensor.node)
        return activation_codes(self.ranges[tensor.node], tensor.dtype, tensor.nbit, largest)

    def _weight(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """Integers and scales."""
        config = self.config.for_layer(node.name)
        per_channel = config.weight_granularity == "per_channel"
        axis = LAYERS[node.op]
        bias = self.annotation.bias_of(node.index)
        smallest = np.maximum(
            bias_safe_scale(bias, self._codes(node.inputs[0]).scale),
            self.budget.smallest_scale.get(node.index, 0),
        )
        weight = node.constants[0].value.numpy()
        try:
            return quantize_weight(
                weight,
                axis if per_channel else None,
                weight_levels(config),
                smallest,
                config.weight_scale,
            )
        except QuantizeError as error:
            raise QuantizeError(f"layer '{node.name}': {error}") from error
