"""Did it really quantize? Each layer's multiply-accumulates as its generated code executes them.

Nothing here reads what the compiler says of itself but a layer's name, shape and nominal size: the
precision comes from the LLVM IR of its function (`macs`), how often each multiplication is executed
from its loops (`executions`), and the instructions from its assembly (`asm`). Of a network for a
GPU, the CUDA text is read instead (`cuda_work`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import InputError
from ..executors.accounting import MemoryUse
from ..executors.cuda import CudaLibrary
from ..executors.library import Library
from ..lower.record import KernelRecord
from . import asm, ir
from .asm import HotLoop
from .classes import MULTIPLIES, ON_GPUS
from .cuda_code import CudaCode
from .executions import executions
from .ir import IRFunction
from .macs import INTEGER, Mac, multiply_accumulates

PREFIX = "__tvm_ffi_"  # of what TVM exports for a PrimFunc
UNRECORDED = "lib.kernels does not have it"
NOT_FOUND = "no multiply-accumulate was found in its code"


@dataclass(frozen=True)
class LayerProof:
    """One layer and what its code multiplies.

    Attributes
    ----------
    record : KernelRecord
        The layer as ``lib.kernels`` has it.
    macs : int
        Nominal multiply-accumulates of one call, the whole batch; where the record has none, what
        the code executes.
    executed : dict of str to int
        Multiply-accumulates that its code executes in one call, by the type that is multiplied:
        ``"int8"``, ``"int16"``, ``"int32"``, ``"float16"``, ``"float32"``; ``"look-up"`` counts
        bytes that are looked up, ``"bits"`` pairs of bits. More than `macs` where channels are
        padded, less at the border of an image and with Winograd's algorithm.
    exact : bool
        Whether the code alone decides how often everything is executed. If data does, `executed`
        is relative: both ways of a choice are counted, and of a loop one pass.
    classes : Counter
        Instructions of all its assembly by class.
    hot_loop : HotLoop or None
        The loop that multiplies most, in assembly; None where nothing is left in loops.
    """

    record: KernelRecord
    macs: int
    executed: dict[str, int]
    exact: bool
    classes: Counter = field(repr=False, default_factory=Counter)
    hot_loop: HotLoop | None = field(repr=False, default=None)

    @property
    def integer_share(self) -> float:
        """Share of its work that is done in integers, 0 to 1."""
        total = sum(self.executed.values())
        return sum(self.executed.get(kind, 0) for kind in INTEGER) / total if total else 0.0

    @property
    def integer_macs(self) -> float:
        """Nominal multiply-accumulates done in integers."""
        return self.macs * self.integer_share

    @property
    def precision(self) -> str:
        """What is multiplied, most of it first: ``"int8"``, or ``"int8 + float32"``."""
        kinds = sorted(self.executed, key=self.executed.get, reverse=True)
        return " + ".join(kinds) or "unknown"

    @property
    def instructions(self) -> str:
        """What multiplies in the hot loop, or in all its code, with how often it stands there."""
        classes = self.hot_loop.classes if self.hot_loop else self.classes
        found = {kind: classes[kind] for kind in classes if kind in (*MULTIPLIES, *ON_GPUS)}
        ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {kind}" for kind, count in ranked)

    @property
    def reason(self) -> str:
        """Why it is not in integers; empty where it is."""
        if self.integer_share == 1:
            return ""
        return self.record.reason or ("" if self.executed else NOT_FOUND)

    def line(self) -> dict:
        """The layer as a row of a table."""
        return {
            "layer": self.record.layer,
            "op": self.record.op,
            "shape": self.record.shape,
            "macs": self.macs,
            "precision": self.precision,
            "executed": sum(self.executed.values()),
            "exact": self.exact,
            "integer_share": self.integer_share,
            "schedule": self.record.schedule,
            "instructions": self.instructions,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Proof:
    """Layers of a network and what their code multiplies; prints as a table.

    Attributes
    ----------
    rows : tuple of LayerProof
        Layers that multiply and accumulate, in execution order.
    memory : MemoryUse
        Bytes of constants by dtype.
    """

    rows: tuple[LayerProof, ...]
    memory: MemoryUse

    @property
    def macs(self) -> int:
        """Nominal multiply-accumulates of one call, the whole batch."""
        return sum(row.macs for row in self.rows)

    @property
    def integer_share(self) -> float:
        """Share of the network's multiply-accumulates that is done in integers, 0 to 1."""
        return sum(row.integer_macs for row in self.rows) / self.macs if self.macs else 0.0

    @property
    def by_precision(self) -> dict[str, float]:
        """Nominal multiply-accumulates by the type in which they are executed, the most first."""
        found: Counter = Counter()
        for row in self.rows:
            total = sum(row.executed.values())
            for kind, number in row.executed.items():
                found[kind] += row.macs * number / total
            if not total:
                found["unknown"] += row.macs
        return dict(found.most_common())

    @property
    def float_layers(self) -> list[LayerProof]:
        """Layers that are not all in integers."""
        return [row for row in self.rows if row.integer_share < 1]

    def lines(self) -> list[dict]:
        """A row of a table for each layer; see `LayerProof`."""
        return [row.line() for row in self.rows]

    def __str__(self) -> str:
        header = ["layer", "op", "shape", "MACs", "executed as", "executed", "schedule",
                  "multiplies in the hot loop", "why not in integers"]  # fmt: skip
        rows = [header] + [_cells(row) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if column in (3, 5) else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self._summary()])

    __repr__ = __str__

    def _summary(self) -> Iterator[str]:
        yield f"{self.macs:,} MACs a call, {100 * self.integer_share:.1f} % of them in integers"
        for kind, number in self.by_precision.items():
            yield f"  {kind}: {100 * number / self.macs:.1f} %"
        weights = ", ".join(f"{size:,} {dtype}" for dtype, size in self.memory.weights.items())
        yield f"constants, bytes: {weights}"


def proof(library: Library) -> Proof:
    """Read from a library's generated code in which precision each layer multiplies.

    Parameters
    ----------
    library : Library
        From `relaxquant.compile`, with any executor and for any target.

    Raises
    ------
    InputError
        If the library was loaded from a file, which holds no code to read; if llvmlite is missing.

    Notes
    -----
    A layer counts as done in integers by what its code executes, not by what it was asked to:
    see `relaxquant.inspect.macs` for what is taken for a multiply-accumulate.
    """
    if library.is_machine_code:
        raise InputError(
            "a library that was loaded from a file holds machine code only, which says nothing of "
            "types: compile the network again with rq.compile(...) and prove that"
        )
    code = CudaCode(library) if isinstance(library, CudaLibrary) else _LLVMCode(library)
    layers = _Layers(library, code)
    rows = [row for row in map(layers.layer, library.kernels) if row]
    return Proof((*rows, *layers.others(library.kernels)), library.memory)


class _Layers:
    """A library's layers beside what was found in its generated code."""

    def __init__(self, library: Library, code: Code):
        self.batch = library.metadata.inputs[0][1][0] or 1
        self.code = code
        self.known: dict[str, tuple[dict, bool]] = {}

    def layer(self, record: KernelRecord) -> LayerProof | None:
        """A layer; None if it neither should multiply and accumulate nor does."""
        if record.name not in self.code.names:
            if record.macs:
                raise InputError(
                    f"there is no code of layer {record.layer!r}: no function {record.name!r}"
                )
            return None  # done by the virtual machine itself, or within another kernel
        executed, exact = self._executed(record.name)
        macs = self.batch * record.macs or sum(executed.values())
        if not macs:
            return None
        return LayerProof(record, macs, executed, exact, *self.code.instructions(record.name))

    def others(self, records: Iterable[KernelRecord]) -> Iterator[LayerProof]:
        """Functions that no record names and that multiply and accumulate nevertheless."""
        for name in self.code.names - {record.name for record in records} - {"main"}:
            record = KernelRecord(name, name, name, "", "", "", "", reason=UNRECORDED)
            if row := self.layer(record):
                yield row

    def _executed(self, name: str) -> tuple[dict[str, int], bool]:
        if name not in self.known:
            self.known[name] = self.code.executed(name)
        return self.known[name]


class Code(Protocol):
    """Generated code by function, whatever machine it is for."""

    names: Set[str]

    def executed(self, name: str) -> tuple[dict[str, int], bool]:
        """Multiply-accumulates of one call by precision, and whether all loop bounds are known."""

    def instructions(self, name: str) -> tuple[Counter, HotLoop | None]:
        """Classes of all its instructions, and the loop that multiplies most."""


class _LLVMCode:
    """LLVM IR and assembly, each function looked at once."""

    def __init__(self, library: Library):
        self.entries = {
            name.removeprefix(PREFIX): function
            for part in ir.parse(library.source("ll")).parts
            for name, function in part.functions.items()
            if name.startswith(PREFIX)
        }
        self.names = self.entries.keys()
        self.assembly = asm.parse(library.source("asm"))

    def executed(self, name: str) -> tuple[dict[str, int], bool]:
        entry = self.entries[name]
        found = [mac for f in entry.reached() for mac in multiply_accumulates(f)]
        return _weighed(entry, found) if found else ({}, True)

    def instructions(self, name: str) -> tuple[Counter, HotLoop | None]:
        reached = self.assembly.reached_from(PREFIX + name)
        classes = sum((function.classes() for function in reached), Counter())
        return classes, asm.hottest(reached)


def _weighed(entry: IRFunction, found: list[Mac]) -> tuple[dict[str, int], bool]:
    """Multiply-accumulates of one call by precision, and whether all loop bounds are known."""
    times = executions(entry, {mac.instruction.block for mac in found})
    sums: Counter = Counter()
    for mac in found:
        sums[mac.precision] += mac.number * times.blocks[mac.instruction.block]
    return {kind: number for kind, number in sums.items() if number}, times.exact


def _cells(row: LayerProof) -> list[str]:
    executed = f"{sum(row.executed.values()):,}"
    return [
        row.record.layer,
        row.record.op,
        row.record.shape,
        f"{row.macs:,}",
        row.precision,
        executed if row.exact else f"{executed} (relative)",
        row.record.schedule,
        row.instructions or "-",
        row.reason or "-",
    ]
