"""The lowering's own view of a network: a list of layers, each with its epilogue.

Relax spells a quantized convolution as six calls; a kernel does them in one pass. Between the two
stands this small data structure: nodes in program order, and values that know their precision.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tvm

from ..kernels.fixed_point import FLOAT
from ..kernels.rounding import TO_EVEN
from ..kernels.spec import FLOATS, INTEGERS, TensorSpec, Window, centered


@dataclass(eq=False)
class Value:
    """A tensor between two layers.

    Parameters
    ----------
    name : str
        Name of the Relax variable it came from.
    shape : tuple
        Logical shape; the first entry is None where the batch is symbolic.
    dtype : str
        ``"float32"`` or ``"float16"``, or ``"uint8"`` (int8 is stored shifted by 128) or
        ``"int16"`` for quantized activations. Other dtypes only pass through layers that stay with
        TVM. A float16 value stands for the float32 variable too that it is cast to.
    scale : float
        Real units for one step; 1 for floats.
    zero_point : int
        Stored value of 0.
    block : int
        Channels in the innermost axis, set by `layout.assign`; 1 is plain NCHW.
    nhwc : bool
        Whether that axis holds all channels and the layout is called NHWC.
    halo : tuple of int, optional
        Border of zero points around an image in memory, as `TensorSpec` has it.
    largest : int
        Largest stored value of uint8, or magnitude of int16, set by `ranges.find`.
    foreign : bool
        Whether TVM or the caller made it: integers then mean what they say, or lie in memory as the
        caller has them, with the scale that a dequantize gave them.
    signed : bool
        Whether the model has it as int8: uint8 here is that shifted by 128.
    channels_last : bool
        Whether it is the caller's image in plain (N, H, W, C); ``shape`` is (N, C, H, W) still.
    rounding : str
        How the kernel that computes it rounds: one of `kernels.rounding.ROUNDINGS`.
    """

    name: str
    shape: tuple
    dtype: str = "float32"
    scale: float = 1.0
    zero_point: int = 0
    block: int = 1
    nhwc: bool = False
    halo: tuple[int, int, int, int] | None = None
    largest: int = 255
    foreign: bool = False
    rounding: str = TO_EVEN
    channels_last: bool = False
    signed: bool = False

    @property
    def is_quantized(self) -> bool:
        """Whether it is a quantized activation."""
        return self.dtype in INTEGERS and not self.foreign

    @property
    def is_feature_map(self) -> bool:
        """Whether it is (N, C, H, W) or (N, C), which kernels can take."""
        return len(self.shape) in (2, 4) and (self.dtype in FLOATS or self.is_quantized)

    @property
    def float_dtype(self) -> str:
        """dtype of what float arithmetic reads of it: float32, but for what is float16 already."""
        return "float16" if self.dtype == "float16" else "float32"

    @property
    def spec(self) -> TensorSpec:
        """What a kernel is told of it."""
        height, width = self.shape[2:] if len(self.shape) == 4 else (1, 1)
        return TensorSpec(
            channels=self.shape[1],
            height=height,
            width=width,
            dtype=self.dtype,
            block=self.block,
            zero_point=self.zero_point,
            rank=len(self.shape),
            nhwc=self.nhwc,
            halo=self.halo,
            largest=self.largest if self.dtype == "uint8" else 255,  # kernels need no other
            rounding=self.rounding,
            channels_last=self.channels_last,
        )

    def same_steps(self, other: Value) -> bool:
        """Whether the same stored number means the same in both."""
        mine = (self.dtype, self.scale, self.zero_point)
        return mine == (other.dtype, other.scale, other.zero_point)


@dataclass(frozen=True)
class Weight:
    """A layer's weights: floats, or int8 or int16 with a scale for each output channel.

    ``array`` is (O, I / groups, KH, KW); ``scale`` is (O,) float64, or None for floats.
    ``zero_point`` (O,) int32 is what is subtracted from int8, None where it is 0 everywhere.
    ``float32_scales`` says whether TFLite multiplies ``scale`` by the data's in float32: that of a
    convolution's uint8 weights.
    """

    array: np.ndarray = field(repr=False)
    scale: np.ndarray | None = field(repr=False, default=None)
    zero_point: np.ndarray | None = field(repr=False, default=None)
    float32_scales: bool = False

    @property
    def dequantized(self) -> np.ndarray:
        """The weights as floats: float32, but for those that are float16."""
        if self.scale is None:
            return self.array
        steps = centered(self.array, self.zero_point)
        return (steps * self.scale[:, None, None, None]).astype(np.float32)


@dataclass(eq=False)
class Node:
    """A layer.

    ``op`` is one of ``conv2d`` (dense layers too), ``max_pool2d``, ``avg_pool2d`` (``mean`` if it
    was one over height and width), ``add``, ``mul``, ``table`` (a function of each element),
    ``softmax``, ``pad``, ``resize``, ``concat``, ``clip``, ``quantize``, ``cast`` (to float16),
    ``convert``, ``bias_add``, ``narrow``, or ``tvm``: a Relax call that no kernel here takes, with
    the ``reason``. ``inputs`` of a conv2d are its data and, once fused, the residual; its
    ``reason`` says why it stays in float although it is quantized.

    ``dense`` says of a conv2d that it is a dense layer.

    ``load`` and ``store`` are what stands between the caller's integers and ours. A ``view`` is the
    same memory under another shape.

    A ``narrow`` saturates a sum to ``narrow`` bits, counted in ``steps`` for each channel; a conv2d
    takes it in. ``calls`` are the quantize and dequantize that it stands for.

    ``requantize`` is what the network asks for: one of `kernels.fixed_point.REQUANTIZE`.
    """

    op: str
    inputs: list[Value]
    output: Value
    label: str = ""
    window: Window = field(default_factory=Window)
    groups: int = 1
    dense: bool = False
    weight: Weight | None = None
    bias: np.ndarray | None = None
    integer_bias: tuple[np.ndarray, np.ndarray] | None = None  # as the model has it, and its scale
    clip: tuple[float, float] | None = None
    count_include_pad: bool = False
    mean: bool = False
    table: np.ndarray | None = field(repr=False, default=None)  # see `kernels.table`
    resize: tuple[bool, str] | None = None  # ``linear`` and ``mode`` of `kernels.resize`
    call: tvm.ir.Call | None = None
    reason: str = ""
    narrow: int | None = None
    steps: np.ndarray | None = field(repr=False, default=None)
    calls: tuple[Node, ...] = field(repr=False, default=())
    requantize: str = FLOAT

    @property
    def residual(self) -> Value | None:
        """Second operand of a convolution with a fused residual add."""
        return self.inputs[1] if self.op == "conv2d" and len(self.inputs) > 1 else None

    @property
    def integer(self) -> bool:
        """Whether a convolution multiplies integers."""
        return self.weight is not None and not self.why_float

    @property
    def why_float(self) -> str:
        """Why a convolution does not multiply integers; empty if it does.

        It can where data are uint8 and weights int8, or data int16 and weights either.
        """
        if self.reason or self.weight.scale is None:
            return self.reason or "not quantized"
        if not self.inputs[0].is_quantized:
            return "activations are not quantized"
        if self.inputs[0].dtype == "uint8" and self.weight.array.dtype != np.int8:
            return f"no kernel multiplies uint8 by {self.weight.array.dtype}"
        if self.inputs[0].dtype == "int16" and self.weight.zero_point is not None:
            return "no kernel multiplies int16 by weights with zero points"
        return ""


@dataclass
class Graph:
    """A network: its inputs, its layers in program order, its outputs."""

    inputs: list[Value]
    nodes: list[Node]
    outputs: list[Value]
    returns_tuple: bool = False

    def users(self) -> dict[Value, list[Node | None]]:
        """Nodes that read each value, with None for each time it is an output."""
        users: dict[Value, list[Node | None]] = {}
        for node in self.nodes:
            for value in node.inputs:
                users.setdefault(value, []).append(node)
        for value in self.outputs:
            users.setdefault(value, []).append(None)
        return users

    def drop_dead(self) -> None:
        """Remove nodes whose output nobody reads."""
        live = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if node.output in live:
                kept.append(node)
                live.update(node.inputs)
        self.nodes = kept[::-1]
