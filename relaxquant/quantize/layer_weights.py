"""The integers, scales and bias correction of every quantized layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from rich.progress import track

from .annotate import Annotation
from .compensate import damping_for, refit_scale, round_compensated
from .config import QConfig, QuantizeError
from .graph import Node
from .integers import Integers
from .layer_inputs import LayerInputs, as_matrix, as_weight
from .operators import LAYERS
from .weights import Levels, quantize_weight, round_to_levels, weight_levels


@dataclass(frozen=True)
class LayerWeights:
    """One layer, quantized.

    Parameters
    ----------
    quantized : numpy.ndarray
        int8 or int16, the shape of the layer's weights.
    scale : numpy.ndarray
        float32, shape (channels,) or ().
    shift : numpy.ndarray, optional
        What is added to the bias of each channel: float32, shape (channels,).
    """

    quantized: np.ndarray
    scale: np.ndarray
    shift: np.ndarray | None = None


def quantize_layers(
    annotation: Annotation,
    config: QConfig,
    integers: Integers,
    inputs: Mapping[int, LayerInputs] | None = None,
    *,
    progress: bool = False,
) -> dict[int, LayerWeights]:
    """Quantize the weights of all layers.

    Parameters
    ----------
    annotation : Annotation
        What `annotate` said of the network.
    config : QConfig
        `weight_granularity`, `weight_scale`, `weight_rounding`, `bias_correction`, `nbit_weight`,
        `layer_bits`, `ternary` and `reduce_range` act here.
    integers : Integers
        Of the activations.
    inputs : mapping of int to LayerInputs, optional
        What `observe_inputs` found; for ``weight_rounding="compensated"`` and `bias_correction`.
    progress : bool
        Draw a progress bar.

    Raises
    ------
    QuantizeError
        If a weight is NaN or infinite.
    """
    found = {}
    for root in track(annotation.layers, "quantize weights", disable=not progress):
        node = annotation.graph.nodes[root]
        own = config.for_layer(node.name)
        if integers.data_codes(root).dtype == "int16":
            own = replace(own, weight_rounding="nearest")  # the budget of int32 was planned for it
        seen = inputs[root] if inputs is not None else None
        try:
            found[root] = _layer(node, own, integers.smallest_scale(root), seen)
        except QuantizeError as error:
            raise QuantizeError(f"layer '{node.name}': {error}") from error
    return found


def _layer(
    node: Node, config: QConfig, smallest: np.ndarray, inputs: LayerInputs | None
) -> LayerWeights:
    weight = node.constants[0].value.numpy()
    axis = LAYERS[node.op] if config.weight_granularity == "per_channel" else None
    levels = weight_levels(config)
    if config.weight_rounding == "compensated" and inputs is not None:
        quantized, scale = _compensated(node, weight, axis, levels, config, smallest, inputs)
    else:
        quantized, scale = quantize_weight(weight, axis, levels, smallest, config.weight_scale)
    if not config.bias_correction or inputs is None:
        return LayerWeights(quantized, scale)
    return LayerWeights(quantized, scale, _shift(node, weight, quantized, scale, inputs))


def _compensated(
    node: Node,
    weight: np.ndarray,
    axis: int | None,
    levels: Levels,
    config: QConfig,
    smallest: np.ndarray,
    inputs: LayerInputs,
) -> tuple[np.ndarray, np.ndarray]:
    """Scales as for rounding to nearest, weights rounded one after the other.

    Where the bias is corrected, the mean of what a layer reads costs nothing, and its covariance
    takes the place of the second moments.
    """
    gram = inputs.second_moment(centred=config.bias_correction)
    importance = np.einsum("gii->gi", gram)[:, None]
    matrix = as_matrix(weight, node)
    spread = as_weight(np.broadcast_to(importance, matrix.shape), node)
    _, scale = quantize_weight(weight, axis, levels, smallest, config.weight_scale, spread)
    scales = np.broadcast_to(scale, weight.shape[LAYERS[node.op]]).reshape(matrix.shape[:2])

    damping = damping_for(gram.shape[1], inputs.count)

    def rounding(steps: np.ndarray) -> np.ndarray:
        return round_to_levels(steps, np.float32(1), None, levels)

    codes = round_compensated(matrix, scales, gram, rounding, damping)
    if axis is not None and config.weight_scale == "mse":
        scale = refit_scale(matrix, codes, scales, gram).reshape(-1)
        scale = np.maximum(scale, np.float32(smallest))
    return np.ascontiguousarray(as_weight(codes, node)).astype(levels.dtype), scale


def _shift(
    node: Node,
    weight: np.ndarray,
    quantized: np.ndarray,
    scale: np.ndarray,
    inputs: LayerInputs,
) -> np.ndarray:
    """By how much quantization lowers the mean of each output channel.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
    ICCV 2019, section 4.2, with means of the inputs that were measured, as they are and quantized.
    """
    exact, rounded = as_matrix(weight, node), as_matrix(quantized, node).astype(np.float32)
    channels = weight.shape[LAYERS[node.op]]
    scales = np.broadcast_to(scale, channels).reshape(exact.shape[:2])
    wanted = np.einsum("gmk,gk->gm", exact, inputs.mean_x)
    given = np.einsum("gmk,gk->gm", rounded, inputs.mean_q) * scales
    return (wanted - given).reshape(-1).astype(np.float32)
