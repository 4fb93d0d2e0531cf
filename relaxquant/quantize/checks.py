"""Checks of the fields of `QConfig`: a refusal names the field, its value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

from ..errors import RelaxQuantError


class QuantizeError(RelaxQuantError, ValueError):
    """A network, a setting or calibration data cannot be used to quantize."""


def refuse(field: str, value, allowed: str) -> None:
    """Raise QuantizeError for a field's value."""
    raise QuantizeError(f"QConfig.{field} is {value!r}; allowed: {allowed}")


def one_of(field: str, value, allowed: Sequence, hint: str = "") -> None:
    """Refuse a value that is not among ``allowed``; by type too: True == 1, and 8.0 == 8."""
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        refuse(field, value, ", ".join(map(repr, allowed)) + hint)


def number_up_to(field: str, value, highest: float, allowed: str) -> None:
    """Refuse anything but a finite number above 0 and at most ``highest``."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and 0 < value <= highest):
        refuse(field, value, allowed)


def chunk(field: str, value) -> None:
    """Refuse anything but -1 and integers from 1 up."""
    if not _is_integer(value) or (value != -1 and value < 1):
        refuse(field, value, "-1, or an integer from 1 up")


def indices(field: str, value) -> tuple[int, ...]:
    """A tuple of integers from 0 up; None is none."""
    found = _tuple_of(value)
    if found is None or not all(_is_integer(index) and index >= 0 for index in found):
        refuse(field, value, "a sequence of integers from 0 up")
    return tuple(int(index) for index in found)


def names(field: str, value) -> tuple[str, ...] | None:
    """None, or a tuple of names."""
    if value is None:
        return None
    found = None if isinstance(value, str) else _tuple_of(value)
    if found is None or not all(isinstance(name, str) for name in found):
        refuse(field, value, "None, or a sequence of operator names")
    return tuple(found)


def layer_bits(field: str, value, allowed: Sequence[int]) -> tuple:
    """``((layer, (bits of weights, bits of data or None)), ...)``, in the order of the names."""
    pairs = _tuple_of(value.items() if isinstance(value, Mapping) else value)
    bits = ", ".join(map(str, allowed))
    what = f"a mapping of layer names to bits, or to pairs of bits (weights, data), of {bits}"
    if pairs is None:
        refuse(field, value, what)
    found = {}
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            refuse(field, value, what)
        both = tuple(pair[1]) if isinstance(pair[1], tuple | list) else (pair[1], None)
        if len(both) != 2 or not _are_bits((both[0], both[1] or both[0]), allowed):
            refuse(field, value, what)
        found[pair[0]] = both
    return tuple(sorted(found.items()))


def _are_bits(values: Sequence, allowed: Sequence[int]) -> bool:
    return all(_is_integer(value) and value in allowed for value in values)


def _tuple_of(value) -> tuple | None:
    if value is None:
        return ()
    try:
        return tuple(value)
    except TypeError:
        return None


def _is_integer(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
