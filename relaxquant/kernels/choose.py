"""``schedule="auto"``: the table of rules that says which schedule a layer gets, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .intrinsics import InstructionSet
from .spec import ConvSpec


@dataclass(frozen=True)
class Preference:
    """A line of the table: layers for which ``holds(spec, isa)`` get ``schedule``."""

    schedule: str
    holds: Callable[[ConvSpec, InstructionSet], bool]
    reason: str


def in_nhwc(spec: ConvSpec, _isa: InstructionSet) -> bool:
    """Whether the network is in NHWC, because a schedule was asked for that is."""
    return spec.out.nhwc


# Asked from the top; a schedule that does not apply to the layer after all is passed over.
PREFERENCES: tuple[Preference, ...] = (
    Preference("nhwc_quantized_interleaved", in_nhwc, "the network is in NHWC"),
    Preference("nhwc_spatial_pack", in_nhwc, "the network is in NHWC"),
    Preference("nchw_spatial_pack", lambda spec, isa: True, "direct convolution"),
    Preference("reference", lambda spec, isa: True, "no vector schedule takes such groups"),
)


def preferences(spec: ConvSpec, isa: InstructionSet) -> list[Preference]:
    """The lines of the table that hold for a layer, best first."""
    return [preference for preference in PREFERENCES if preference.holds(spec, isa)]
