"""Cross-layer equalisation: channels of a tensor get like ranges before it is quantized.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019:
``f(a * x) = a * f(x)`` for a ReLU and ``a > 0``, so channel i of one layer can be multiplied by
``a_i`` and the weights that read it divided by ``a_i``. Weights have scales of their own for each
channel here, so it is the range of the activations that is balanced against that of the weights
that read them, as in SmoothQuant (Xiao et al., arXiv 2211.10438).

A ReLU6 is no ``f`` of that kind. A channel that calibration data takes to 6 keeps its factor 1;
another may grow until it just reaches 6, and then nothing that was seen is clipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from tvm import IRModule, relax

from .annotate import Annotation
from .batches import checked_batches, input_spec
from .calibrate import CompileFn, observed_runner, samples, tracked
from .chains import Chain, find_chains
from .graph import Graph, Node, rebuild
from .operators import LAYERS, layer_refusal

COMMUTING = ("nn.max_pool2d", "nn.avg_pool2d", "nn.adaptive_avg_pool2d")
"""Operators through which a positive factor of a channel passes."""

LARGEST_FACTOR = 64.0
"""Channels that are all but dead are not blown up without bound."""


@dataclass(frozen=True)
class Pair:
    """Two layers of which only the second reads the first.

    Parameters
    ----------
    first : Chain
        The first layer with its bias and activation.
    second : int
        The node of the second.
    ceiling : float
        Where the activation between them clips; infinite for a ReLU or none.
    """

    first: Chain
    second: int
    ceiling: float


def equalize(
    mod: IRModule,
    annotation: Annotation,
    batches: Iterable,
    *,
    compile_fn: CompileFn | None = None,
    progress: bool = False,
) -> IRModule:
    """Balance all pairs of layers by what calibration data shows of the tensors between them.

    Parameters
    ----------
    mod, annotation, batches, compile_fn, progress
        As in `calibrate`.

    Returns
    -------
    IRModule
        The float network with other weights, see `equalized`; tensors keep their names.
    """
    graph, spec = annotation.graph, input_spec(mod)
    pairs = find_pairs(graph)
    if not pairs:
        return mod
    ends = [pair.first.end for pair in pairs]
    run = observed_runner(mod, annotation, ends, spec, compile_fn)
    highest: dict[int, np.ndarray] = {}
    checked = checked_batches(batches, spec)
    for sample in samples(tracked(checked, batches, "observe channels", progress), spec):
        for end, values in run(sample).items():
            seen = np.abs(values).max(axis=(0, 2, 3))
            highest[end] = np.maximum(highest.get(end, 0.0), seen)
    factors = {pair: balance(graph, pair, highest[pair.first.end]) for pair in pairs}
    return equalized(mod, graph, factors)


def find_pairs(graph: Graph) -> list[Pair]:
    """All pairs of a network whose channels can be equalised."""
    layers = {n.index for n in graph.nodes if n.op in LAYERS and layer_refusal(n) is None}
    pairs = []
    for chain in find_chains(graph, layers):
        reader = _reader(graph, chain.end)
        if chain.root not in layers or chain.residual is not None or reader is None:
            continue
        ceiling = _ceiling(graph, chain)
        if reader.op == "nn.conv2d" and reader.index in layers and ceiling is not None:
            pairs.append(Pair(chain, reader.index, ceiling))
    return pairs


def equalized(mod: IRModule, graph: Graph, factors: Mapping[Pair, np.ndarray]) -> IRModule:
    """The network with channel i of each pair's tensor multiplied by ``factors[pair][i]``.

    Its function is the same up to float rounding, but for values above those that the factors of a
    ReLU6 were found with.
    """
    new: dict[int, np.ndarray] = {}
    for pair, factor in factors.items():
        for index, axis in ((pair.first.root, 0), (pair.first.bias, 1)):
            if index is not None:
                constant = _constant(graph, index, new)
                new[index] = constant * _spread(factor, constant, axis)
        second = graph.nodes[pair.second]
        new[pair.second] = _constant(graph, pair.second, new) / _of_inputs(factor, second)

    def rewrite(bb: relax.BlockBuilder, node: Node, call: relax.Call) -> relax.Expr:
        if node.index not in new:
            return call
        value = relax.const(new[node.index].astype(np.float32))
        args = [value if arg.same_as(node.constants[0]) else arg for arg in call.args]
        return relax.Call(call.op, args, call.attrs, call.ty_args)

    return rebuild(mod, graph, rewrite=rewrite)


def balance(graph: Graph, pair: Pair, highest: np.ndarray) -> np.ndarray:
    """The factor of each channel between two layers.

    Parameters
    ----------
    graph : Graph
        The network.
    pair : Pair
        Two of its layers.
    highest : numpy.ndarray
        Largest magnitude seen of each channel between them, shape (channels,).

    Returns
    -------
    numpy.ndarray
        float64, shape (channels,), positive. Where the second layer is depthwise, its weights have
        a scale for each input, and all channels get the range of the widest; else the range of
        activations and that of the weights that read them move half-way towards each other.
    """
    second = graph.nodes[pair.second]
    readers = _ranges_of_readers(second)
    alive = (highest > 0) & (readers > 0)
    wide = np.where(alive, highest, 1.0)
    if int(second.attrs["groups"]) == len(highest):
        factor = wide[alive].max(initial=0) / wide
    else:
        factor = np.sqrt(np.where(alive, readers, 1.0) / wide)
        # Only ratios matter: the widest channel keeps its range.
        factor *= wide[alive].max(initial=0) / max((factor * wide)[alive].max(initial=0), 1e-30)
    factor = np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    if np.isfinite(pair.ceiling):
        room = np.maximum(pair.ceiling / wide, 1.0)
        factor = np.where(highest >= pair.ceiling, 1.0, np.minimum(factor, room))
    return np.where(alive, factor, 1.0)


def _reader(graph: Graph, index: int) -> Node | None:
    """The one operator that reads a tensor, pooling looked through."""
    reader = graph.only_consumer(index)
    while reader is not None and reader.op in COMMUTING:
        reader = graph.only_consumer(reader.index)
    return reader


def _ceiling(graph: Graph, chain: Chain) -> float | None:
    """Where the chain's activation clips; None for one that no factor passes."""
    last = graph.nodes[chain.end]
    if last.op != "clip":
        return np.inf
    low, high = (float(arg.value) for arg in last.value.args[1:3])
    return high if low == 0 else None


def _ranges_of_readers(second: Node) -> np.ndarray:
    """Largest magnitude of the weights that read each input channel, shape (channels,)."""
    weight = np.abs(second.constants[0].value.numpy())
    groups = int(second.attrs["groups"])
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    return grouped.max(axis=(1, 3, 4)).reshape(-1).astype(np.float64)


def _of_inputs(factor: np.ndarray, second: Node) -> np.ndarray:
    """A factor for each input channel, shaped like the weights that read it."""
    outputs, inputs = second.constants[0].value.shape[:2]
    groups = int(second.attrs["groups"])
    rows = np.repeat(factor.reshape(groups, inputs), outputs // groups, axis=0)
    return rows[:, :, None, None]


def _spread(factor: np.ndarray, constant: np.ndarray, axis: int) -> np.ndarray:
    shape = [1] * constant.ndim
    shape[constant.ndim - 3 if axis == 1 else 0] = -1
    return factor.reshape(shape)


def _constant(graph: Graph, index: int, new: Mapping[int, np.ndarray]) -> np.ndarray:
    return new[index] if index in new else graph.nodes[index].constants[0].value.numpy()
