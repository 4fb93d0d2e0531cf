"""The first phases of lowering, up to what is the same for every target."""

from __future__ import annotations

import tvm

from ..kernels.fixed_point import FLOAT
from ..kernels.registry import layout_of
from ..parts import joined
from . import overflow, ranges
from .fuse import fuse
from .graph import Graph
from .layout import assign
from .read import Reader, main_of


def prepared(
    module: tvm.IRModule,
    schedule: str,
    requantize: str = FLOAT,
    halos: bool = True,
    half: bool = False,
) -> tuple[Reader, Graph]:
    """Read, fused, and with a layout for every value; parameters as those of `lower.lower`.

    ``halos`` says whether there is a kernel for images with a border around them, ``half`` whether
    there are kernels for float16.
    """
    keep_float: dict[str, str] = {}
    while True:
        reader = Reader(main_of(joined(module)), keep_float, requantize, half)
        graph = reader.graph()
        fuse(graph)
        graph.drop_dead()
        ranges.find(graph)
        overflowing = overflow.find(graph)
        if not overflowing:
            assign(graph, layout_of(schedule), halos)
            return reader, graph
        # In float such a layer is fused otherwise, so everything starts anew.
        keep_float |= overflowing
