"""Step 3: write quantize/dequantize pairs and integer weights into the module (QDQ Relax)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import IRModule, relax
from tvm.relax import op as R

from ..qdq import round_before
from .annotate import Annotation
from .config import QConfig
from .graph import Node, rebuild
from .integers import Integers
from .layer_weights import LayerWeights
from .operators import LAYERS


def insert_qdq(
    mod: IRModule,
    annotation: Annotation,
    config: QConfig,
    integers: Integers,
    weights: Mapping[int, LayerWeights],
) -> IRModule:
    """Turn an annotated and calibrated fp32 module into QDQ Relax.

    Every tensor of `annotation` gets one ``R.quantize`` and one ``R.dequantize`` after its
    producer, and every operator that reads it reads the latter; the function's result stays float.
    What stands before it says how it is rounded and which bits it uses: see `relaxquant.qdq`.
    Weights of quantized layers become ``R.dequantize`` of an int8 or int16 constant; biases stay
    float additions, of whole steps of the layer's sum. A sum of 8 or 16 bits is one more pair,
    before the bias, whose scale is that of the sum.

    Parameters
    ----------
    mod : IRModule
        The fp32 module that was annotated; not changed.
    annotation : Annotation
        What `annotate` said of it.
    config : QConfig
        `rounding`, `round_for_shift`, `nbit_activation` and `dtype_activation` act here.
    integers : Integers
        Of the activations: what `find_integers` made of the ranges.
    weights : mapping of int to LayerWeights
        What `quantize_layers` made of the weights.

    Returns
    -------
    IRModule
        The QDQ module, which TVM's own pipeline can build, too.
    """
    writer = _Writer(annotation, config, integers, weights)
    return rebuild(mod, annotation.graph, reads=writer.reads, rewrite=writer.rewrite)


class _Writer:
    """The two hooks of `rebuild`."""

    def __init__(
        self,
        annotation: Annotation,
        config: QConfig,
        integers: Integers,
        weights: Mapping[int, LayerWeights],
    ):
        self.annotation, self.config = annotation, config
        self.integers, self.weights = integers, weights
        chains = annotation.layers.values()
        self.layer_of_bias = {chain.bias: chain.root for chain in chains if chain.bias is not None}

    def reads(self, bb: relax.BlockBuilder, node: Node, var: relax.Var) -> relax.Var:
        """Emit the pairs of `node`, if it has any; return what operators read."""
        if node.index in self.weights and self.config.sum_bits < 32:
            var = self._narrow_sum(bb, node, var)
        shift = self._shift_alone(node)
        if shift is not None:
            var = bb.emit(R.add(var, shift), name_hint=f"{node.name}_bias")
        tensor = self.annotation.tensors.get(node.index)
        if tensor is None:
            return var
        codes = self.integers.codes(node.index)
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
        """Give a quantized layer its integer weights, and its bias what corrects it."""
        if node.index in self.layer_of_bias:
            return self._with_bias(node, call)
        if node.index not in self.weights:
            return call
        found = self.weights[node.index]
        zero = np.zeros(found.scale.shape, found.quantized.dtype)
        parameters = (relax.const(found.scale), relax.const(zero))
        weight = R.dequantize(relax.const(found.quantized), *parameters, axis=LAYERS[node.op])
        weight = bb.emit(weight, name_hint=f"{node.name}_weight")
        return relax.Call(call.op, [call.args[0], weight], call.attrs, call.ty_args)

    def _with_bias(self, node: Node, call: relax.Call) -> relax.Call:
        layer = self.layer_of_bias[node.index]
        if layer not in self.weights:
            return call
        shift = self.weights[layer].shift
        bias = self.annotation.bias_of(layer)
        bias = self._in_steps(layer, bias if shift is None else bias + shift)
        (old,) = node.constants
        new = relax.const(bias.reshape(self._bias_shape(layer)))
        args = [new if arg.same_as(old) else arg for arg in call.args]
        return relax.Call(call.op, args, call.attrs, call.ty_args)

    def _bias_shape(self, layer: int) -> list[int]:
        return [1, -1, 1, 1] if self.annotation.graph.nodes[layer].op == "nn.conv2d" else [-1]

    def _shift_alone(self, node: Node) -> relax.Expr | None:
        """What corrects the mean of a layer that has no bias; None for others.

        A layer that is the function's result as it is stays so: its name is that of the result.
        """
        found = self.weights.get(node.index)
        if found is None or found.shift is None or node.index in self.layer_of_bias.values():
            return None
        shift = self._in_steps(node.index, found.shift)
        return relax.const(shift.reshape(self._bias_shape(node.index)))

    def _in_steps(self, layer: int, bias: np.ndarray) -> np.ndarray:
        """A bias as integers hold it, in whole steps of the sum that it is added to.

        Integer kernels round it so; written here, the float graph and they compute the same.
        """
        if self.config.sum_bits < 32:
            return bias  # it is added to the narrowed sum, in float
        step = self._step_of_sum(layer)
        return (np.rint(bias / step) * step).astype(np.float32)

    def _step_of_sum(self, layer: int) -> np.ndarray:
        return self.weights[layer].scale * self.integers.data_codes(layer).scale

    def _narrow_sum(self, bb: relax.BlockBuilder, node: Node, var: relax.Var) -> relax.Var:
        """A layer's sum as an integer of `QConfig.sum_bits` holds it, saturated."""
        scale = np.broadcast_to(self._step_of_sum(node.index), node.shape[1]).astype(np.float32)
        dtype = f"int{self.config.sum_bits}"
        parameters = (relax.const(scale), relax.const(np.zeros(scale.shape, dtype)))
        narrow = R.quantize(var, *parameters, axis=1, out_dtype=dtype)
        narrow = bb.emit(narrow, name_hint=f"{node.name}_{dtype}")
        return bb.emit(R.dequantize(narrow, *parameters, axis=1), name_hint=f"{node.name}_sum")
