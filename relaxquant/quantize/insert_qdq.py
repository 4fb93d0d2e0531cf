"""Step 3: write quantize/dequantize pairs and int8 weights into the module (QDQ Relax)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import IRModule, relax
from tvm.relax import op as R

from ..qdq import round_before
from .annotate import Annotation
from .chains import Chain
from .config import QConfig, QuantizeError
from .graph import Graph, Node, rebuild
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
    Weights of quantized layers become ``R.dequantize`` of an int8 constant; biases stay float
    additions.

    Parameters
    ----------
    mod : IRModule
        The fp32 module that was annotated; not changed.
    annotation : Annotation
        What `annotate` said of it.
    config : QConfig
        `weight_granularity`, `weight_scale`, `nbit_weight`, `layer_bits`, `ternary`,
        `reduce_range`, `rounding` and `round_for_shift` act here.
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

    def reads(self, bb: relax.BlockBuilder, node: Node, var: relax.Var) -> relax.Var:
        """Emit the pair of `node`, if it has one; return what operators read."""
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
        """Give a quantized layer its int8 weights."""
        chain = self.annotation.layers.get(node.index)
        if chain is None:
            return call
        weight = bb.emit(self._weight(node, chain), name_hint=f"{node.name}_weight")
        return relax.Call(call.op, [call.args[0], weight], call.attrs, call.ty_args)

    def _codes(self, index: int) -> Codes:
        # Of the tensor it shares the scale with, type and zero point too.
        tensor = self.annotation.tensors[self.annotation.tensors[index].shares]
        return activation_codes(self.ranges[tensor.node], tensor.dtype, tensor.nbit)

    def _weight(self, node: Node, chain: Chain) -> relax.Expr:
        config = self.config.for_layer(node.name)
        per_channel = config.weight_granularity == "per_channel"
        axis = LAYERS[node.op]
        bias = _bias(self.annotation.graph, chain)
        smallest = bias_safe_scale(bias, self._codes(node.inputs[0]).scale)
        weight = node.constants[0].value.numpy()
        try:
            quantized, scale = quantize_weight(
                weight,
                axis if per_channel else None,
                weight_levels(config),
                smallest,
                config.weight_scale,
            )
        except QuantizeError as error:
            raise QuantizeError(f"layer '{node.name}': {error}") from error
        zero = relax.const(np.zeros(scale.shape, np.int8))
        return R.dequantize(relax.const(quantized), relax.const(scale), zero, axis=axis)


def _bias(graph: Graph, chain: Chain) -> np.ndarray:
    """The bias of a chain, flat; a single 0 without one."""
    if chain.bias is None:
        return np.zeros(1, np.float32)
    return graph.nodes[chain.bias].constants[0].value.numpy().reshape(-1)
