"""What can be chosen about quantization, under the names of relay.quantize."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields

from . import checks
from .checks import QuantizeError

NBITS = (1, 2, 3, 4, 5, 6, 7, 8, 16)
FEW_BITS = (1, 2, 3, 4, 5, 6)
BITS_OF = {"int8": 8, "uint8": 8, "int16": 16, "int32": 32}
CHOICES = {
    "nbit_input": NBITS,
    "nbit_weight": NBITS,
    "nbit_activation": (8, 16, 32),
    "nbit_ends": (None, *NBITS),
    "dtype_input": ("auto", "int8", "uint8", "int16"),
    "dtype_weight": ("auto", "int8", "int16"),
    "dtype_activation": ("int8", "int16", "int32"),
    "calibrate_mode": ("global_scale", "min_max", "percentile", "kl_divergence", "mse"),
    "weight_scale": ("power2", "max", "mse"),
    "skip_dense_layer": (False, True),
    "do_simulation": (False, True),
    "round_for_shift": (False, True),
    "rounding": ("UPWARD", "TONEAREST", "TOEVEN"),
    "partition_conversions": ("disabled", "enabled", "fully_integral"),
    "weight_granularity": ("per_channel", "per_tensor"),
    "weight_rounding": ("nearest", "compensated"),
    "ternary": (False, True),
    "reduce_range": ("auto", False, True),
    "asymmetric": (False, True),
    "bias_correction": (False, True),
    "cross_layer_equalization": (False, True),
}
HINTS = {"dtype_input": "; bits are set by nbit_input", "dtype_weight": "; bits: nbit_weight"}

_active: ContextVar[tuple[QConfig, ...]] = ContextVar("relaxquant_qconfig", default=())


@dataclass(frozen=True)
class QConfig:
    """Settings of `relaxquant.quantize`: those of TVM's ``relay.quantize.qconfig``, and new ones.

    ``QConfig()`` has relay.quantize's defaults, `QConfig.best` those that lose the least accuracy.
    In a ``with`` statement it holds for every `relaxquant.quantize` inside that is given none.

    Parameters
    ----------
    nbit_input : int
        Bits of quantized activations, 1 to 8 or 16.
    nbit_weight : int
        Bits of quantized weights, 1 to 8 or 16. One bit is -1 and 1.
    nbit_activation : int
        Bits of a layer's sum, 8, 16 or 32: a sum that needs more is clipped.
    dtype_input : str
        Type of quantized activations: ``"int8"`` symmetric, ``"uint8"`` with a zero point where
        they can be negative, ``"int16"`` symmetric; ``"auto"`` takes ``"uint8"`` where they cannot
        be negative or `asymmetric` is set, and ``"int16"`` for 16 bits.
    dtype_weight : str
        Type of quantized weights, ``"int8"`` or ``"int16"``; ``"auto"`` by their bits.
    dtype_activation : str
        Type of a layer's sum; the narrower of it and `nbit_activation` counts.
    calibrate_mode : str
        How an activation's threshold, the largest magnitude that is not clipped, is found:
        ``"global_scale"`` takes `global_scale` for all of them and needs no data; ``"min_max"``
        takes the largest magnitude seen, ``"percentile"`` the `percentile`-th percentile of the
        magnitudes seen, ``"kl_divergence"`` what changes their distribution least, ``"mse"`` what
        costs the least squared error.
    global_scale : float
        Threshold of every activation in mode ``"global_scale"``.
    weight_scale : str
        Scale of weights: ``"max"`` clips none, ``"power2"`` is the next power of two above,
        ``"mse"`` costs the least squared error.
    skip_dense_layer : bool
        Whether all dense layers (``R.matmul`` by a constant) stay in float.
    skip_conv_layers : sequence of int or None
        Convolutions that stay in float, counted from 0 in order of appearance.
    do_simulation : bool
        Return the float network that computes exactly what the quantized one does.
    round_for_shift : bool
        Whether sums are rounded when they become activations, or cut off (towards minus infinity).
    debug_enabled_ops : sequence of str or None
        Quantize these operators only; None for all that can be.
    rounding : str
        Of values between two integers: ``"UPWARD"`` rounds halves up, ``"TONEAREST"`` away from
        zero, ``"TOEVEN"`` to the even one, which costs one instruction.
    calibrate_chunk_by : int
        Observe at most so many tensors at a time, running over the data again for the next ones;
        -1 for all at once.
    partition_conversions : str
        ``"enabled"`` puts conversions of inputs, integer middle and conversions of outputs into
        functions of their own; ``"fully_integral"`` also refuses float operators in the middle.
    percentile : float
        In (0, 100], for mode ``"percentile"``; 100 is ``"min_max"``.
    weight_granularity : str
        ``"per_channel"``: one scale for each output channel; ``"per_tensor"``: one for each layer.
    weight_rounding : str
        ``"nearest"``, or ``"compensated"``: what rounding one weight adds to a layer's output is
        taken back by the weights still to be rounded (needs calibration data).
    ternary : bool
        With two bits: -1, 0 and 1 instead of -2 to 1.
    reduce_range : bool or "auto"
        Quantize 8-bit weights to [-64, 64] instead of [-127, 127]. ``vpmaddubsw`` adds two u8 x s8
        products in a saturating int16: ``255 * 64 * 2 = 32640 < 32767`` cannot saturate,
        ``255 * 127 * 2`` can, and the lowering must use a slower exact instruction wherever the
        weights do not prove safety. ``"auto"`` does so where the target has nothing better.
    asymmetric : bool
        Give activations that can be negative a range of their own on either side of 0.
    bias_correction : bool
        Take the mean error that quantization adds to each channel out of the biases.
    cross_layer_equalization : bool
        Move ranges between neighbouring layers before quantization, so that channels are alike.
    layer_bits : mapping of str to int or (int, int)
        Mixed precision: bits of the weights of single layers, by the name of the tensor that the
        convolution or matmul computes, or bits of its weights and of the activation it reads. That
        activation gets the most that any of its layers asks for. Kept as a tuple of pairs.
    nbit_ends : int or None
        Bits of the weights of the network's first and last layer, and of what they read; None for
        those of all others. `layer_bits` goes before.

    Raises
    ------
    QuantizeError
        If a value is not allowed; the message names the field and what is.
    TypeError
        If a field does not exist; the message gives the nearest name.

    Notes
    -----
    Names and defaults of the first 17: ``python/tvm/relay/quantize/quantize.py`` (Relay, removed).
    """

    nbit_input: int = 8
    nbit_weight: int = 8
    nbit_activation: int = 32
    dtype_input: str = "int8"
    dtype_weight: str = "int8"
    dtype_activation: str = "int32"
    calibrate_mode: str = "global_scale"
    global_scale: float = 8.0
    weight_scale: str = "power2"
    skip_dense_layer: bool = True
    skip_conv_layers: tuple[int, ...] | None = (0,)
    do_simulation: bool = False
    round_for_shift: bool = True
    debug_enabled_ops: tuple[str, ...] | None = None
    rounding: str = "UPWARD"
    calibrate_chunk_by: int = -1
    partition_conversions: str = "disabled"
    percentile: float = 99.99
    weight_granularity: str = "per_tensor"
    weight_rounding: str = "nearest"
    ternary: bool = False
    reduce_range: bool | str = "auto"
    asymmetric: bool = False
    bias_correction: bool = False
    cross_layer_equalization: bool = False
    layer_bits: tuple[tuple[str, tuple[int, int | None]], ...] = ()
    nbit_ends: int | None = None

    @classmethod
    def relay_default(cls, **fields) -> QConfig:
        """What relay.quantize did when nothing was chosen: the defaults, with ``fields``."""
        return cls(**fields)

    @classmethod
    def best(cls, **fields) -> QConfig:
        """The settings that lose the least accuracy, with ``fields`` changed.

        With weights of 6 bits and fewer they are clipped (``weight_scale="mse"``) and rounded for
        the least error of a layer's output (``weight_rounding="compensated"``). With weights or
        activations of 6 bits and fewer the first and the last layer keep 8 (``nbit_ends=8``). In
        mode ``"global_scale"``, which needs no data, biases are not corrected.
        """
        chosen = dict(_BEST)
        if fields.get("nbit_weight", 8) in FEW_BITS:
            chosen |= {"weight_scale": "mse", "weight_rounding": "compensated"}
        if {fields.get("nbit_weight"), fields.get("nbit_input")} & set(FEW_BITS):
            chosen["nbit_ends"] = 8
        if fields.get("calibrate_mode") == "global_scale":
            chosen |= {"bias_correction": False, "weight_rounding": "nearest"}
        return cls(**(chosen | fields))

    @staticmethod
    def current() -> QConfig | None:
        """The innermost config that a ``with`` statement holds; None outside of all."""
        active = _active.get()
        return active[-1] if active else None

    def __new__(cls, *args, **kwargs):
        # The generated __init__ would refuse an unknown name too, but without the nearest one.
        names = [field.name for field in dataclass_fields(cls)]
        for name in kwargs:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
                hint = f"did you mean '{near[0]}'?" if near else "fields: " + ", ".join(names)
                raise TypeError(f"QConfig has no field '{name}'; {hint}")
        return super().__new__(cls)

    def __post_init__(self):
        for field, allowed in CHOICES.items():
            checks.one_of(field, getattr(self, field), allowed, HINTS.get(field, ""))
        checks.number_up_to("global_scale", self.global_scale, math.inf, "a finite number above 0")
        checks.number_up_to("percentile", self.percentile, 100, "a number above 0 and at most 100")
        checks.chunk("calibrate_chunk_by", self.calibrate_chunk_by)
        self._set("skip_conv_layers", checks.indices("skip_conv_layers", self.skip_conv_layers))
        self._set("debug_enabled_ops", checks.names("debug_enabled_ops", self.debug_enabled_ops))
        self._set("layer_bits", checks.layer_bits("layer_bits", self.layer_bits, NBITS))
        self._check_types_hold_bits()
        self._check_form()

    def __enter__(self) -> QConfig:
        _active.set((*_active.get(), self))
        return self

    def __exit__(self, *_exception) -> None:
        _active.set(_active.get()[:-1])

    @property
    def weight_qmax(self) -> int:
        """Largest magnitude of a quantized weight: of 8 bits 64 with `reduce_range`, else 127."""
        if self.nbit_weight == 8 and self.reduce_range is True:
            return 64
        return max(2 ** (self.nbit_weight - 1) - 1, 1)

    def for_layer(self, name: str) -> QConfig:
        """The config of one layer: with the bits that `layer_bits` has for it, and no others."""
        if not self.layer_bits:
            return self
        weight, data = dict(self.layer_bits).get(name, (self.nbit_weight, None))
        return replace(self, nbit_weight=weight, nbit_input=data or self.nbit_input, layer_bits=())

    @property
    def activation_rounding(self) -> str:
        """`rounding`, or ``"DOWN"`` where `round_for_shift` does without."""
        return self.rounding if self.round_for_shift else "DOWN"

    @property
    def sum_bits(self) -> int:
        """Bits of a layer's sum: the narrower of `nbit_activation` and `dtype_activation`."""
        return min(self.nbit_activation, BITS_OF[self.dtype_activation])

    def with_ends(self, layers: Sequence[str]) -> QConfig:
        """The config with `nbit_ends` written into `layer_bits`, for a network's layers."""
        if self.nbit_ends is None or not layers:
            return replace(self, nbit_ends=None)
        ends = dict.fromkeys((layers[0], layers[-1]), (self.nbit_ends, self.nbit_ends))
        return replace(self, layer_bits=ends | dict(self.layer_bits), nbit_ends=None)

    def for_target(self, target="native") -> QConfig:
        """The config with ``reduce_range="auto"`` decided for a compilation target.

        Raises
        ------
        TargetError
            If the target is unknown.
        """
        if self.reduce_range != "auto":
            return self
        from .. import target as targets
        from ..kernels.intrinsics import instruction_set

        fastest = instruction_set(targets.resolve(target)).dots[0]
        return replace(self, reduce_range=fastest.pairs_saturate)

    def _check_form(self) -> None:
        if self.do_simulation and self.partition_conversions != "disabled":
            raise QuantizeError(
                "QConfig.do_simulation gives a network without conversions, but "
                f"partition_conversions is {self.partition_conversions!r}: set one of the two"
            )

    def _check_types_hold_bits(self) -> None:
        for what in ("input", "weight"):
            nbit, dtype = getattr(self, f"nbit_{what}"), getattr(self, f"dtype_{what}")
            if dtype != "auto" and nbit > BITS_OF[dtype]:
                raise QuantizeError(
                    f"QConfig.nbit_{what} is {nbit}, but dtype_{what} is {dtype!r}, which holds "
                    f"{BITS_OF[dtype]} bits: set dtype_{what}='auto'"
                )

    def _set(self, field: str, value) -> None:
        object.__setattr__(self, field, value)


_BEST = {
    "dtype_input": "auto",
    "dtype_weight": "auto",
    "calibrate_mode": "mse",
    "asymmetric": True,
    "bias_correction": True,
    "weight_scale": "max",
    "weight_granularity": "per_channel",
    "skip_dense_layer": False,
    "skip_conv_layers": (),
    "rounding": "TOEVEN",
}


def qconfig(**fields) -> QConfig:
    """Settings for a ``with`` statement, as ``relay.quantize.qconfig`` gave them.

    Raises
    ------
    QuantizeError, TypeError
        As `QConfig`.

    Examples
    --------
    >>> with rq.qconfig(skip_conv_layers=[0], global_scale=4.0):
    ...     qmod = rq.quantize(mod)
    """
    return QConfig(**fields)
