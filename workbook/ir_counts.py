"""The study's count of dtype words, again, and the count of instructions that it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from relaxquant.inspect import ir
from relaxquant.inspect.macs import multiply_accumulates

if TYPE_CHECKING:
    import pandas as pd

    from relaxquant import Library
    from relaxquant.inspect.substrings import SubstringCount
    from workbook.context import Run
    from workbook.evidence import Variant

STATES = ("unquantized", "quantized")
PERCENT = 100
FLOATS = ("fma", "fmul")
DOTS = ("vpdp", "pmadd", "sdot", "udot", "usdot", "smull", "umull")  # in names of intrinsics
PREFIX = "__tvm_ffi_"  # of what TVM exports for a function


def beside_published(
    published: pd.DataFrame, counts: Mapping[str, SubstringCount]
) -> list[dict[str, Any]]:
    """A line a word: the study's occurrences, and those in each library.

    Parameters
    ----------
    published : pandas.DataFrame
        ``resnet50_study_ir_counts``.
    counts : mapping
        Library -> its count.
    """
    lines = []
    for word in next(iter(counts.values())).hits:
        theirs = published[published["metric"] == f"ir_count_{word}"].set_index("variant")["value"]
        line = {"word": word} | {f"published, {state}": int(theirs[state]) for state in STATES}
        lines.append(line | {name: count.total(word) for name, count in counts.items()})
    return lines


def keep(run: Run, counts: Mapping[str, SubstringCount], variants: Mapping[str, Variant]) -> None:
    """Record the occurrences of each word, and the share of all that is in string constants."""
    for name, count in counts.items():
        columns = variants[name].columns
        for word in count.hits:
            value = count.total(word)
            run.record(metric=f"ir_count_{word}", value=value, unit="occurrences", **columns)
        share = PERCENT * count.share("string constant")
        run.record(metric="ir_hits_in_strings", value=share, unit="%", **columns)


def multiplications(library: Library) -> Counter:
    """Instructions that multiply, in the functions of layers with multiply-accumulates.

    Returns
    -------
    Counter
        By (kind, whether its product is accumulated): ``("mul <16 x i32>", True)``. Addresses,
        which are scalars of 64 bits, are left out. Functions that layers share count once.
    """
    names = {PREFIX + record.name for record in library.kernels if record.macs}
    found: Counter = Counter()
    for part in ir.parse(library.source("ll")).parts:
        for entry in names & part.functions.keys():
            for function in part.functions[entry].reached():
                found.update(_multiplications(function))
    return found


def _multiplications(function: ir.IRFunction) -> Iterator[tuple[str, bool]]:
    accumulated = {id(mac.instruction) for mac in multiply_accumulates(function)}
    for one in function.instructions:
        kind = _kind(one)
        if kind:
            yield kind, id(one) in accumulated


def _kind(one: ir.Instruction) -> str:
    shape = f"<{one.lanes} x {one.element}>" if one.lanes > 1 else one.element
    if one.opcode == "fmul" or (one.opcode == "mul" and (one.lanes > 1 or one.element != "i64")):
        return f"{one.opcode} {shape}"
    if one.callee.startswith(("llvm.fma.", "llvm.fmuladd.")):
        return f"fma {shape}"
    parts = one.callee.split(".")
    if parts[:2] == ["llvm", "x86"] or parts[:2] == ["llvm", "aarch64"]:
        return next((p for p in parts if p.startswith(DOTS)), "")
    return ""


def multiplication_lines(found: Mapping[str, Counter]) -> list[dict[str, Any]]:
    """A line for each kind of multiplication, a column for each library."""
    kinds = sum(found.values(), Counter())
    return [
        {"instruction": kind, "its product is": "summed up" if summed else "not summed up"}
        | {name: count[kind, summed] for name, count in found.items()}
        for (kind, summed), _ in sorted(kinds.items(), key=lambda k: (not k[0][1], -k[1], k[0][0]))
    ]


def summed_up(found: Counter, *, integer: bool) -> int:
    """Multiplications whose products are accumulated, of integers or of floats."""
    return sum(
        number
        for (kind, summed), number in found.items()
        if summed and integer != kind.startswith(FLOATS)
    )
