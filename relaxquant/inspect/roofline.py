"""What a machine's limits say of each layer: the least time, and whether compute or memory sets it.

The roofline of Williams, Waterman and Patterson, CACM 2009, with one refinement: what a layer reads
and writes counts against memory only where it does not fit the last-level cache, since its input
was written by the layer before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import tvm

from ..kernels.spec import ConvSpec, ConvWeights, TensorSpec
from ..lower import conv_layers
from ..measure.cpuinfo import read_cpu
from ..measure.peak import Peak


@dataclass(frozen=True)
class LayerBound:
    """The least time of one convolution or dense layer, computed directly.

    Attributes
    ----------
    layer, shape : str
        As in ``lib.kernels``.
    precision : str
        ``"fp32"`` or ``"int8"``.
    macs : int
        Multiply-accumulates of the whole batch.
    bytes : int
        Input, weights, residual and output of the whole batch.
    compute_s, memory_s : float
        Least seconds for the arithmetic, and for the bytes if all come from memory.
    fits_cache : bool
        Whether the bytes fit the last-level cache.
    """

    layer: str
    shape: str
    precision: str
    macs: int
    bytes: int
    compute_s: float
    memory_s: float
    fits_cache: bool

    @property
    def by_memory(self) -> bool:
        """Whether memory sets the limit."""
        return not self.fits_cache and self.memory_s > self.compute_s

    @property
    def seconds(self) -> float:
        """The limit."""
        return self.memory_s if self.by_memory else self.compute_s


def layer_bounds(
    module: tvm.IRModule,
    peak: Peak,
    batch: int,
    threads: int | None = None,
    cache_bytes: int | None = None,
) -> list[LayerBound]:
    """The least time of each layer that ``rq.compile`` makes of a module, in order.

    Winograd's schedules multiply less than counted here, and may go below.

    Parameters
    ----------
    module : tvm.IRModule
        fp32 or QDQ Relax; its batch may be symbolic.
    peak : Peak
        Limits of the machine, for the target in question.
    batch : int
        Images in one inference.
    threads : int, optional
        As measured for ``peak``; default: the most.
    cache_bytes : int, optional
        Size of the last-level cache; default: this machine's, 0 where it does not say.
    """
    threads = threads or peak.threads[-1]
    if cache_bytes is None:
        cache_bytes = max((cache["bytes"] for cache in read_cpu()["caches"] or []), default=0)
    bounds = []
    for layer in conv_layers(module):
        precision = layer.spec.precision
        macs = batch * layer.spec.macs_per_image
        moved = layer_bytes(layer.spec, layer.weights, batch)
        bounds.append(
            LayerBound(
                layer=layer.label,
                shape=layer.shape,
                precision=precision,
                macs=macs,
                bytes=moved,
                compute_s=macs / (peak.fastest(precision, threads) * 1e9),
                memory_s=moved / (peak.read_gbs[threads] * 1e9),
                fits_cache=moved <= cache_bytes,
            )
        )
    return bounds


def layer_bytes(spec: ConvSpec, weights: ConvWeights, batch: int) -> int:
    """Bytes of a layer's input, weights, bias, residual and output, padded channels included."""
    tensors = [spec.data, spec.out, spec.epilogue.residual]
    activations = sum(_bytes(tensor, batch) for tensor in tensors if tensor is not None)
    return activations + weights.weight.nbytes + 4 * len(weights.bias)


def _bytes(tensor: TensorSpec, batch: int) -> int:
    return prod(tensor.physical_shape(batch)) * np.dtype(tensor.dtype).itemsize
