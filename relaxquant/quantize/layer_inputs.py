"""What each quantized layer reads, as columns: their mean and their second moments.

A convolution is a product of its weights with the columns of its input (im2col). Which columns are
looked at is drawn at random, the same ones at every call; memory holds one square matrix a layer
and group, whatever the number of images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from tvm import IRModule

from .annotate import Annotation
from .batches import checked_batches, input_spec
from .calibrate import CompileFn, observed_runner, samples, tracked
from .config import QConfig
from .graph import Node
from .integers import Integers

FEWEST, MOST = 32, 256
"""Columns an image: few where a layer has many inputs, whose product is expensive."""

BUDGET = 2e8
"""Multiplications for the products of one layer's columns of one image."""

TOGETHER = 512
"""Columns that are multiplied at once: the sums are large, and each product passes over them."""


@dataclass
class LayerInputs:
    """Sums over the columns that a layer has read, float (`x`) and quantized (`q`).

    Attributes
    ----------
    count : int
        Columns.
    x, q : numpy.ndarray
        float64, sums of columns, shape (groups, inputs).
    gram : numpy.ndarray, optional
        float32, sum of ``q q^T``, shape (groups, inputs, inputs); None if nobody asked for it.
    """

    count: int
    x: np.ndarray
    q: np.ndarray
    gram: np.ndarray | None
    _pending: list[np.ndarray] = field(default_factory=list, repr=False)

    @property
    def mean_x(self) -> np.ndarray:
        """Mean of the float columns."""
        return self.x / max(self.count, 1)

    @property
    def mean_q(self) -> np.ndarray:
        """Mean of the quantized columns."""
        return self.q / max(self.count, 1)

    def second_moment(self, centred: bool) -> np.ndarray:
        """Mean of ``q q^T``, or the covariance of the quantized columns."""
        self._multiply()
        moment = self.gram / max(self.count, 1)
        if centred:
            moment -= np.einsum("gi,gj->gij", self.mean_q, self.mean_q).astype(np.float32)
        return moment

    def add(self, columns: np.ndarray, quantized: np.ndarray) -> None:
        """Take in columns, float32 of shape (groups, n, inputs)."""
        self.count += columns.shape[1]
        self.x += columns.sum(axis=1, dtype=np.float64)
        self.q += quantized.sum(axis=1, dtype=np.float64)
        if self.gram is not None:
            self._pending.append(quantized)
            if sum(part.shape[1] for part in self._pending) >= TOGETHER:
                self._multiply()

    def _multiply(self) -> None:
        """Add the products of the columns that wait for it."""
        if not self._pending:
            return
        columns = np.concatenate(self._pending, axis=1)
        self._pending.clear()
        for group, part in zip(self.gram, columns, strict=True):
            group += part.T @ part  # of two dimensions and one array NumPy computes one half only


def nothing_seen(groups: int, inputs: int, with_gram: bool) -> LayerInputs:
    """The sums before the first column."""
    zeros = np.zeros((groups, inputs))
    gram = np.zeros((groups, inputs, inputs), np.float32) if with_gram else None
    return LayerInputs(0, zeros, zeros.copy(), gram)


@dataclass(frozen=True)
class Columns:
    """How a layer's input becomes columns.

    Parameters
    ----------
    groups, inputs : int
        Of its weights: columns have shape (groups, n, inputs).
    kernel, strides, padding, dilation : tuple of int
        Of a convolution; padding is (top, left, bottom, right). Empty for a dense layer.
    """

    groups: int
    inputs: int
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    @property
    def per_image(self) -> int:
        """How many columns of one image are looked at."""
        return int(np.clip(BUDGET / (self.groups * self.inputs**2), FEWEST, MOST))

    def of(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Columns of a layer's input, float32: (N, C, H, W), or (N, inputs) for a dense layer."""
        if not self.kernel:
            return x.reshape(1, -1, self.inputs)
        top, left, bottom, right = self.padding
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
        windows = windows[:, :, :: self.strides[0], :: self.strides[1]]
        windows = windows[..., :: self.dilation[0], :: self.dilation[1]]
        images, _, rows, columns = windows.shape[:4]
        places = rows * columns
        taken = min(self.per_image, places)
        chosen = np.stack([rng.permutation(places)[:taken] for _ in range(images)])
        image = np.repeat(np.arange(images), taken)
        picked = windows[image, :, chosen.ravel() // columns, chosen.ravel() % columns]
        return picked.reshape(len(image), self.groups, self.inputs).transpose(1, 0, 2)


def needs_inputs(config: QConfig) -> bool:
    """Whether quantizing weights takes a second run over the calibration data."""
    return config.bias_correction or config.weight_rounding == "compensated"


def observe_inputs(
    mod: IRModule,
    annotation: Annotation,
    config: QConfig,
    integers: Integers,
    batches: Iterable,
    *,
    compile_fn: CompileFn | None = None,
    progress: bool = False,
) -> dict[int, LayerInputs]:
    """Run the fp32 network once more, and collect what its quantized layers read.

    Parameters
    ----------
    mod, annotation, config, batches, compile_fn, progress
        As in `calibrate`.
    integers : Integers
        Of the activations.

    Returns
    -------
    dict of int to LayerInputs
        By layer: the inputs it has in the fp32 network, as they are and quantized.
    """
    graph, spec = annotation.graph, input_spec(mod)
    columns = {root: columns_of(graph.nodes[root]) for root in annotation.layers}
    with_gram = config.weight_rounding == "compensated"
    seen = {root: nothing_seen(c.groups, c.inputs, with_gram) for root, c in columns.items()}
    source = {root: graph.nodes[root].inputs[0] for root in columns}
    codes = {node: integers.codes(node) for node in source.values()}
    run = observed_runner(mod, annotation, sorted(codes), spec, compile_fn)
    rng = np.random.default_rng(0)
    checked = checked_batches(batches, spec)
    for sample in samples(tracked(checked, batches, "observe layers", progress), spec):
        values = run(sample)
        for root, kind in columns.items():
            found = kind.of(values[source[root]], rng)
            seen[root].add(found, codes[source[root]].rounded(found))
    return seen


def columns_of(node: Node) -> Columns:
    """How the input of a quantized conv2d (NCHW, OIHW) or matmul becomes columns."""
    shape = [int(size) for size in node.constants[0].ty.shape]
    if node.op == "matmul":
        return Columns(1, shape[0])
    attrs = node.attrs
    pair = [tuple(int(v) for v in attrs[name]) for name in ("strides", "padding", "dilation")]
    strides, padding, dilation = pair
    if len(padding) < 4:
        padding = (padding * 2)[:2] * 2
    groups = int(attrs["groups"])
    return Columns(groups, int(np.prod(shape[1:])), tuple(shape[2:]), strides, padding, dilation)


def as_matrix(weight: np.ndarray, node: Node) -> np.ndarray:
    """Weights of a layer as (groups, channels of a group, inputs), a view where possible."""
    if node.op == "matmul":
        return weight.T[None]
    groups = int(node.attrs["groups"])
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def as_weight(matrix: np.ndarray, node: Node) -> np.ndarray:
    """The inverse of `as_matrix`."""
    shape = [int(size) for size in node.constants[0].ty.shape]
    return matrix[0].T if node.op == "matmul" else matrix.reshape(shape)
