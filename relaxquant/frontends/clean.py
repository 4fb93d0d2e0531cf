"""Clean-up of imported fp32 Relax: batch norms folded, constants evaluated, dead code gone."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.relax.dpl import TupleGetItemPattern, is_const, is_op, rewrite_call, wildcard


def clean(module: tvm.IRModule) -> tvm.IRModule:
    """Bring imported fp32 Relax into the form that annotation and lowering expect.

    Drops tuples left by dropout, folds batch norms into the convolutions before them, evaluates
    what depends on constants alone (transposed weights, reshaped biases) and removes dead code.
    Not for QDQ modules: it would evaluate their quantized weights to float.
    """
    passes = [
        relax.transform.CanonicalizeBindings(),
        relax.transform.FoldConstant(),
        FoldBatchNorm(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.DeadCodeElimination(),
    ]
    return tvm.transform.Sequential(passes)(module)


@relax.transform.function_pass(opt_level=0)
class FoldBatchNorm:
    """Fold inference batch norm into the convolution before it, with or without a bias.

    ``gamma * (conv(x, w) + b - mean) / sqrt(var + eps) + beta`` becomes
    ``conv(x, w * s) + (b - mean) * s + beta`` with ``s = gamma / sqrt(var + eps)``, computed in
    float64. TVM's `FoldBatchnormToConv2D` leaves convolutions with a bias alone.
    """

    def __init__(self):
        self.data, self.weight, self.bias = wildcard(), is_const(), is_const()
        self.conv = is_op("relax.nn.conv2d")(self.data, self.weight)
        self.biased = is_op("relax.add")(self.conv, self.bias)
        self.statistics = [is_const() for _ in range(4)]  # gamma, beta, mean, variance

    def transform_function(self, func, _module, _context):
        """Apply the rewriting to one Relax function."""
        for source in (self.conv, self.biased):
            self.norm = is_op("relax.nn.batch_norm")(source, *self.statistics)
            func = rewrite_call(TupleGetItemPattern(self.norm, 0), self._fold, func)
        return func

    def _fold(self, original, matches):
        norm, conv = matches[self.norm], matches[self.conv]
        if conv.attrs["kernel_layout"] != "OIHW" or norm.attrs["axis"] != 1:
            return original
        gamma, beta, mean, variance = (_array(matches[s]) for s in self.statistics)
        bias = _array(matches[self.bias]).reshape(-1) if self.bias in matches else 0.0
        scale = gamma / np.sqrt(variance + norm.attrs["epsilon"])
        weight = _array(matches[self.weight]) * scale[:, None, None, None]
        shift = ((bias - mean) * scale + beta).reshape(1, -1, 1, 1)
        folded = relax.Call(conv.op, [matches[self.data], _constant(weight)], conv.attrs)
        return relax.op.add(folded, _constant(shift))


def _array(constant) -> np.ndarray:
    return constant.value.numpy().astype(np.float64)


def _constant(array: np.ndarray):
    return relax.const(array.astype(np.float32), "float32")
