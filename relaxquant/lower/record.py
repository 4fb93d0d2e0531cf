"""What ``lib.kernels`` shows: one record for each kernel call, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import tvm
from tvm import relax

from ..kernels.tuned import TUNED
from .graph import Node


@dataclass(frozen=True)
class KernelRecord:
    """One kernel call of a compiled network, in execution order.

    Parameters
    ----------
    name : str
        Function in the generated code; equal layers share one.
    layer : str
        Relax variable the call computes.
    op : str
        Operator: ``conv2d``, ``dense``, ``max_pool2d``, ``convert`` ...
    shape : str
        Input and output, channels x height x width, and the window.
    layout : str
        Layout of the input.
    schedule : str
        Row of the schedule table, or ``"tvm default"``.
    precision : str
        ``"int8"``, ``"int16"``, ``"fp16"`` or ``"fp32"``: what is multiplied, or, of layers that
        multiply nothing, moved. Sums of fp16 are fp32.
    instructions : str
        What multiplies and adds.
    macs : int
        Multiply-accumulates for one image; 0 for memory-bound layers.
    tile : str
        Register tile, vectors of output channels x pixels.
    weight_bits : int
        Fewest bits that hold the layer's weights; those of the type for floats, 0 where there are
        none.
    activation_bits : int
        Bits that the layer's input uses; those of the type for int16 and floats, 0 where nothing is
        multiplied.
    weight_bytes : int
        Weights in memory as this kernel reads them: packed, or, where it does not decode packed
        weights (depthwise, NHWC, Winograd), in int8 or int16 whatever their bits.
    requantize : str
        ``"float"`` or ``"tflite"``: how sums of integers become the integers that are stored; empty
        where they do not.
    chosen : str
        Why this schedule.
    reason : str
        Why it is not an integer kernel, where that could be asked.
    """

    name: str
    layer: str
    op: str
    shape: str
    layout: str
    schedule: str
    precision: str
    instructions: str = ""
    macs: int = 0
    tile: str = ""
    weight_bits: int = 0
    activation_bits: int = 0
    weight_bytes: int = 0
    requantize: str = ""
    chosen: str = ""
    reason: str = ""

    def as_dict(self) -> dict:
        """The record as a plain dict."""
        return asdict(self)


class KernelTable(Sequence):
    """Records in execution order; prints as a table, and filters by field."""

    def __init__(self, records: Sequence[KernelRecord]):
        self.records = tuple(records)

    def __getitem__(self, index):
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def tuned(self) -> int:
        """Layers whose kernel a tuning result chose."""
        return sum(record.chosen.startswith(TUNED) for record in self.records)

    def where(self, **wanted: str) -> KernelTable:
        """Records whose fields equal all of ``wanted``, e.g. ``where(op="conv2d")``."""
        return KernelTable(
            [r for r in self.records if all(getattr(r, k) == v for k, v in wanted.items())]
        )

    def __repr__(self) -> str:
        columns = [f.name for f in fields(KernelRecord) if f.name not in ("name",)]
        rows = [columns] + [[str(getattr(r, c) or "-") for c in columns] for r in self.records]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
        lines = ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)


def functions_of(module: tvm.IRModule) -> dict[relax.Var, str]:
    """Variable of ``main`` -> the PrimFunc that TVM calls for it, by the pass that names them.

    By the variable itself, as several may have one name. What the virtual machine does by itself,
    such as a reshape in place, has none.
    """
    legal = relax.transform.LegalizeOps()(module)
    return {
        binding.var: binding.value.args[0].name_hint
        for block in legal["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
        and binding.value.args
        and isinstance(binding.value.args[0], tvm.ir.GlobalVar)
    }


def shape_text(node: Node) -> str:
    """``64x56x56 -> 128x28x28, 3x3/2`` for a node of feature maps."""
    text = f"{_sizes(node.inputs[0].shape)} -> {_sizes(node.output.shape)}"
    if node.op in ("conv2d", "max_pool2d", "avg_pool2d") and not is_dense(node):
        text += f", {node.window}"
    return text + (f", groups {node.groups}" if node.groups > 1 else "")


def is_dense(node: Node) -> bool:
    """Whether a conv2d node is a dense layer."""
    return node.op == "conv2d" and len(node.output.shape) == 2


def _sizes(shape: tuple) -> str:
    return "x".join(str(size) for size in shape[1:])
