"""What can be chosen about quantization, under the names of relay.quantize."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from numbers import Integral, Real

from ..errors import RelaxQuantError

NBITS = (8,)
CALIBRATE_MODES = ("min_max", "global_scale", "percentile")
WEIGHT_GRANULARITIES = ("per_channel", "per_tensor")


class QuantizeError(RelaxQuantError, ValueError):
    """A network, a setting or calibration data cannot be used to quantize."""


@dataclass(frozen=True)
class QConfig:
    """Settings of `relaxquant.quantize`, under the names of TVM's ``relay.quantize.qconfig``.

    Parameters
    ----------
    nbit_input : int
        Bits of quantized activations; only 8.
    nbit_weight : int
        Bits of quantized weights; only 8.
    calibrate_mode : str
        How an activation's threshold, the largest magnitude that is not clipped, is found:
        ``"min_max"`` takes the largest magnitude seen, ``"percentile"`` the `percentile`-th
        percentile of the magnitudes seen, ``"global_scale"`` takes `global_scale` for all of them
        and needs no data.
    global_scale : float
        Threshold of every activation in mode ``"global_scale"``.
    percentile : float
        In (0, 100], for mode ``"percentile"``; 100 is ``"min_max"``.
    weight_granularity : str
        ``"per_channel"``: one scale for each output channel; ``"per_tensor"``: one for each layer.
    skip_conv_layers : sequence of int
        Convolutions that stay in float, counted from 0 in order of appearance.
    skip_dense_layer : bool
        Whether all dense layers (``R.matmul`` by a constant) stay in float.
    reduce_range : bool
        Quantize weights to [-64, 64] instead of [-127, 127]. AVX2's ``vpmaddubsw`` adds two
        u8 x s8 products in a saturating int16: ``255 * 64 * 2 = 32640 < 32767`` cannot saturate,
        ``255 * 127 * 2`` can. With the full range the lowering must use a slower exact instruction
        wherever the weights do not prove safety. Costs just under one bit of weight precision.

    Raises
    ------
    QuantizeError
        If a value is not allowed; the message names the field and what is.
    TypeError
        If a field does not exist; the message gives the nearest name.
    """

    nbit_input: int = 8
    nbit_weight: int = 8
    calibrate_mode: str = "percentile"
    global_scale: float = 8.0
    percentile: float = 99.99
    weight_granularity: str = "per_channel"
    skip_conv_layers: tuple[int, ...] = ()
    skip_dense_layer: bool = False
    reduce_range: bool = True

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
        _one_of("nbit_input", self.nbit_input, NBITS)
        _one_of("nbit_weight", self.nbit_weight, NBITS)
        _one_of("calibrate_mode", self.calibrate_mode, CALIBRATE_MODES)
        _one_of("weight_granularity", self.weight_granularity, WEIGHT_GRANULARITIES)
        _number_in("global_scale", self.global_scale, math.inf, "a finite number above 0")
        _number_in("percentile", self.percentile, 100, "a number above 0 and at most 100")
        _one_of("skip_dense_layer", self.skip_dense_layer, (False, True))
        _one_of("reduce_range", self.reduce_range, (False, True))
        object.__setattr__(self, "skip_conv_layers", _indices(self.skip_conv_layers))

    @property
    def weight_qmax(self) -> int:
        """Largest magnitude of a quantized weight: 64 with `reduce_range`, else 127."""
        largest = 2 ** (self.nbit_weight - 1)
        return largest // 2 if self.reduce_range else largest - 1


def _one_of(field: str, value, allowed: tuple) -> None:
    # By type too: True == 1, and 8.0 == 8.
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        choices = ", ".join(map(repr, allowed))
        raise QuantizeError(f"QConfig.{field} is {value!r}; allowed: {choices}")


def _number_in(field: str, value, highest: float, allowed: str) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and 0 < value <= highest):
        raise QuantizeError(f"QConfig.{field} is {value!r}; allowed: {allowed}")


def _indices(value) -> tuple[int, ...]:
    allowed = "a sequence of integers from 0 up"
    try:
        indices = tuple(value)
    except TypeError:
        indices = (None,)
    for index in indices:
        if not isinstance(index, Integral) or isinstance(index, bool) or index < 0:
            raise QuantizeError(f"QConfig.skip_conv_layers is {value!r}; allowed: {allowed}")
    return tuple(int(index) for index in indices)
