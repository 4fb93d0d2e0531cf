"""What a kernel is told of a layer: shapes, dtypes, layouts and epilogue; no scales, no Relax."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .fixed_point import FLOAT
from .rounding import TO_EVEN
from .tir import BLOCK, ceildiv, lanes_at

INTEGERS = {"uint8": (0, 255), "int16": (-(1 << 15), (1 << 15) - 1)}  # quantized activations
FLOATS = ("float32", "float16")  # what kernels compute in, and what else they store floats as
COMMON, EACH = "common", "each"  # zero points of the weights of all output channels
NCHW16C, NHWC = "NCHW16c", "NHWC"  # layouts of the feature maps of a network


@dataclass(frozen=True)
class TensorSpec:
    """An activation tensor as it lies in memory.

    Parameters
    ----------
    channels, height, width : int
        Logical sizes; a vector of features has height and width 1.
    dtype : str
        ``"float32"``, ``"float16"``, ``"uint8"`` or ``"int16"``. Signed 8-bit activations are
        stored shifted by 128; int16 is symmetric.
    block : int
        Channels in the innermost axis: 16 for NCHW16c, 4 for NCHW4c, 1 for plain NCHW, and all of
        them, padded to whole 16s (or to 4 for an image), for NHWC. Channels are padded up to whole
        blocks; what lies in the padding is finite but not defined.
    zero_point : int
        The stored value that stands for 0; 0 for floats and int16.
    rank : int
        Logical rank: 4, or 2 for a vector of features, which is (batch, C) when not blocked.
    nhwc : bool
        Whether the tensor is called NHWC. Only the name depends on it: NHWC *is* NCHW[x]c with one
        block, and up to 16 channels lie in memory as in NCHW16c.
    halo : tuple of int, optional
        Rows and columns of zero points that lie around the image in memory: top, left, bottom,
        right. Only images for `image_nchw_spatial_pack` have one; their block is all channels.
    largest : int
        Largest value that uint8 can take here: ``2**n - 1`` where only n bits are used. Smaller
        values may be summed in int16 for longer; padded channels may hold larger ones. Of uint8
        only: what int16 needs of ranges is settled before kernels are asked for.
    rounding : str
        How what is stored was rounded: one of `rounding.ROUNDINGS`.
    channels_last : bool
        Whether it is an image as callers have it, plain (batch, H, W, C), or (batch, C) of rank 2,
        which only conversions read and write. Its dtype may be ``"int8"``, and its block is 1.
    """

    channels: int
    height: int
    width: int
    dtype: str
    block: int = BLOCK
    zero_point: int = 0
    rank: int = 4
    nhwc: bool = False
    halo: tuple[int, int, int, int] | None = None
    largest: int = 255
    rounding: str = TO_EVEN
    channels_last: bool = False

    @property
    def integers(self) -> tuple[int, int] | None:
        """Lowest and highest value that an integer dtype holds; None for floats."""
        return INTEGERS.get(self.dtype)

    @property
    def is_float(self) -> bool:
        """Whether what is stored is the value itself."""
        return self.dtype in FLOATS

    @property
    def blocks(self) -> int:
        """Number of channel blocks."""
        return ceildiv(self.channels, self.block)

    @property
    def padded_channels(self) -> int:
        """Channels including the padding of the last block."""
        return self.blocks * self.block

    @property
    def layout(self) -> str:
        """Layout name: ``"NCHW16c"``, ``"NHWC"`` or, where not blocked, ``"NCHW"``."""
        if self.halo:
            return "NHWC, padded"
        if self.block == 1:
            return NHWC if self.channels_last else "NCHW"
        return NHWC if self.nhwc else f"NCHW{self.block}c"

    def physical_shape(self, batch) -> tuple:
        """Shape in memory: (batch, blocks, H, W, block), or the logical one where not blocked."""
        if self.channels_last and self.rank == 4:
            return (batch, self.height, self.width, self.channels)
        if self.block == 1 and not self.halo:
            return (batch, self.channels, self.height, self.width)[: self.rank]
        top, left, bottom, right = self.halo or (0, 0, 0, 0)
        height, width = self.height + top + bottom, self.width + left + right
        return (batch, self.blocks, height, width, self.block)

    def element_at(self, n, channel, h, w) -> list:
        """Index of one element in a buffer of `physical_shape`; all may be TIR expressions."""
        if self.halo:
            return [n, 0, h + self.halo[0], w + self.halo[1], channel]
        if self.channels_last and self.rank == 4:
            return [n, h, w, channel]
        if self.block == 1:
            return [n, channel, h, w][: self.rank]
        block, inner = self._split(channel)
        return [n, block, h, w, inner]

    def vector_at(self, n, channel, h, w, lanes: int) -> list:
        """Index of ``lanes`` neighbouring channels, ``channel`` the first and a multiple of lanes.

        Only for blocks that are a multiple of ``lanes``, so that no vector straddles two.
        """
        block, first = self._split(channel)
        return [n, block, h, w, lanes_at(first, lanes)]

    def _split(self, channel) -> tuple:
        if self.blocks == 1:
            return 0, channel
        return channel // self.block, channel % self.block


@dataclass(frozen=True)
class Window:
    """Sliding window of a convolution or pooling; pairs are (height, width)."""

    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilation: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Output height and width (floor mode)."""
        top, left, bottom, right = self.padding
        sizes = []
        for axis, padded in enumerate((height + top + bottom, width + left + right)):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            sizes.append((padded - reach) // self.strides[axis] + 1)
        return sizes[0], sizes[1]

    def __str__(self) -> str:
        text = f"{self.kernel[0]}x{self.kernel[1]}"
        for word, pair in (("/", self.strides), (" dil ", self.dilation)):
            if pair != (1, 1):
                text += word + (str(pair[0]) if pair[0] == pair[1] else str(pair))
        return text


@dataclass(frozen=True)
class EpilogueSpec:
    """What happens to an accumulator before it is stored.

    ``v = float(acc) * multiplier + (residual - zero_point) * residual_scale``, clipped, and, where
    the output is uint8, rounded as it says and shifted by the output's zero point. Or, from uint8
    to uint8, the same without a float (`fixed_point`). Bounds and scales are run-time parameters,
    so layers that differ only in them share one kernel.

    Parameters
    ----------
    residual : TensorSpec, optional
        What is added.
    clip : bool
        Whether an output of floats is clipped.
    narrow : int, optional
        8 or 16: the accumulator, without the bias, saturates at the range of so many signed bits,
        and the bias is added after that (``dtype_activation`` of relay.quantize).
    requantize : str
        ``"float"`` or ``"tflite"``: one of `fixed_point.REQUANTIZE`. The latter has no residual.
    step_by_step : bool
        Under ``"tflite"``, whether a multiplier is one that `fixed_point.multiply_at_once` does not
        take.
    rounds_once : bool
        Under ``"tflite"``, whether the product is rounded once, as of dense layers.
    saturates : bool
        Whether uint8 outputs are bounded by their dtype alone, so that it is enough to saturate
        when they are stored. There is no residual then, and no multiplier above a half, so that
        values fit int32 before.
    """

    residual: TensorSpec | None = None
    clip: bool = False
    narrow: int | None = None
    requantize: str = FLOAT
    step_by_step: bool = False
    rounds_once: bool = False
    saturates: bool = False


@dataclass(frozen=True)
class ConvSpec:
    """A convolution (or dense layer: 1x1 on 1x1) and its epilogue.

    ``batch`` is None where it is symbolic. ``groups == data.channels`` is depthwise.
    ``weight_zero_points`` is empty where `ConvWeights.zero_point` is None, ``"common"`` where all
    channels have the same and ``"each"`` where they do not.
    """

    batch: int | None
    data: TensorSpec
    out: TensorSpec
    window: Window = Window()
    groups: int = 1
    epilogue: EpilogueSpec = EpilogueSpec()
    weight_zero_points: str = ""

    @property
    def precision(self) -> str:
        """``"int8"``, ``"int16"``, ``"fp16"`` or ``"fp32"``: what is multiplied.

        Products of float16 are summed in float32, those of integers in int32.
        """
        words = {"uint8": "int8", "int16": "int16", "float16": "fp16"}
        return words.get(self.data.dtype, "fp32")

    @property
    def is_integer(self) -> bool:
        """Whether integers are multiplied."""
        return not self.data.is_float

    @property
    def taps(self) -> int:
        """Input channels of one step of a dot product: what fills 32 bits."""
        return {"int16": 2, "int8": 4}.get(self.precision, 1)

    @property
    def pads_with_zero_point(self) -> bool:
        """Whether padded taps must count as the zero point instead of 0."""
        in_memory = self.data.halo is not None
        return self.data.zero_point != 0 and any(self.window.padding) and not in_memory

    @property
    def groups_are_whole_blocks(self) -> bool:
        """Whether no block of channels, in or out, holds channels of two groups."""
        if self.groups == 1:
            return True
        in_group, out_group = self.data.channels // self.groups, self.out.channels // self.groups
        return in_group % self.data.block == 0 and out_group % self.out.block == 0

    @property
    def is_batched_dense(self) -> bool:
        """Whether it is a dense layer on several images, whose weights serve them all."""
        sizes = {self.data.height, self.data.width, self.out.height, self.out.width}
        return sizes == {1} and self.groups == 1 and self.batch is not None and self.batch > 1

    @property
    def macs_per_image(self) -> int:
        """Multiply-accumulates for one image, padding taps included."""
        kernel = self.window.kernel[0] * self.window.kernel[1]
        reduction = self.data.channels // self.groups * kernel
        return self.out.channels * self.out.height * self.out.width * reduction


@dataclass(frozen=True)
class ConvWeights:
    """Parameters of a convolution, before packing.

    Parameters
    ----------
    weight : numpy.ndarray
        (O, I / groups, KH, KW), int8, int16 (for int16 data only), or floats of the data's dtype.
    bias : numpy.ndarray
        (O,), int32 in units of the accumulator, or float32. For integers the zero-point correction
        ``-zero_point * sum(weight)`` is *not* in it: packing adds it.
    multiplier : numpy.ndarray, optional
        (O,) float32, accumulator to output units; None for floats. Under ``requantize="tflite"``
        int32, and ``shift`` belongs to it.
    low, high : float
        Bounds of the clip, in output units and before the zero point is added; integers under
        ``requantize="tflite"``.
    residual_scale : float
        Output units for one step of the residual.
    zero_point : numpy.ndarray, optional
        (O,) int32, what is subtracted from the int8 weights of each output channel; the
        differences may need nine bits. None where all are 0.
    shift : numpy.ndarray, optional
        (O,) int32: ``multiplier * 2.0**(shift - 31)`` is what an accumulator is multiplied by.
    """

    weight: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    multiplier: np.ndarray | None = field(repr=False, default=None)
    low: float = -np.inf
    high: float = np.inf
    residual_scale: float = 1.0
    zero_point: np.ndarray | None = field(repr=False, default=None)
    shift: np.ndarray | None = field(repr=False, default=None)

    @property
    def centered(self) -> np.ndarray:
        """The weights less their zero points: int16 where there are any, else as they are."""
        return centered(self.weight, self.zero_point)


def zero_points_of(zero_point: np.ndarray | None) -> str:
    """`ConvSpec.weight_zero_points` for an (O,) array or None."""
    if zero_point is None:
        return ""
    return COMMON if (zero_point == zero_point[0]).all() else EACH


def centered(weight: np.ndarray, zero_point: np.ndarray | None) -> np.ndarray:
    """int8 weights (O, I / groups, KH, KW) less one zero point a channel, int16; or as they are."""
    if zero_point is None:
        return weight
    return weight.astype(np.int16) - zero_point.astype(np.int16)[:, None, None, None]


def without_zero_points(spec: ConvSpec, weights: ConvWeights) -> tuple[ConvSpec, ConvWeights]:
    """The same layer with int16 weights, for kernels that multiply them as easily as int8."""
    if not spec.weight_zero_points:
        return spec, weights
    spec = replace(spec, weight_zero_points="")
    return spec, replace(weights, weight=weights.centered, zero_point=None)
