"""Imported QDQ Relax in the form that lowering reads, with nothing but stock operators.

What other frameworks quantize arrives with its constants in many forms: a bias as int32 behind
``R.dequantize``, a weight as float32 behind ``R.quantize`` and ``R.dequantize``, or transposed
after it. Here biases become float32, and each layer's weight one ``R.dequantize`` of an integer
constant. What stands in the way of a layer that computes and stores integers moves to where it
does not: see `fold_bounds` and `early_quantize`.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from .clean import clean
from .early_quantize import EarlyQuantize
from .fold_bounds import Clips, FoldPads
from .imported_constants import Constants


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
    module = clean(Constants(weights).rewrite(module))
    for rewriter in (Clips(), FoldPads(), EarlyQuantize()):
        module = rewriter.rewrite(module)
    module = relax.transform.BindParams(
        "main", {name: tvm.runtime.tensor(array) for name, array in weights.items()}
    )(module)
    module = relax.transform.CanonicalizeBindings()(module)
    return relax.transform.DeadCodeElimination()(module)
