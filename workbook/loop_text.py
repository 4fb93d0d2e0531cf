"""The hottest loop in assembly, for reading: folded, side by side, and explained by its counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from relaxquant.inspect.classes import AARCH64, MULTIPLIES, X86, classify

if TYPE_CHECKING:
    from relaxquant.inspect import LayerProof
    from relaxquant.inspect.asm import HotLoop

KEPT = 2  # of equal instructions in a row
WIDE = {"xmm": 128, "ymm": 256, "zmm": 512}


def folded(text: str, keep: int = KEPT) -> list[str]:
    """Lines of a loop; of instructions with one mnemonic in a row only the first few.

    Parameters
    ----------
    text : str
        As `HotLoop.text`.
    keep : int
        Instructions of a row to show.
    """
    lines = []
    for mnemonic, run in groupby(text.splitlines(), key=_mnemonic):
        run = list(run)
        lines += run[:keep] if len(run) > keep + 1 else run
        if len(run) > keep + 1:
            lines.append(f"    ... {len(run) - keep} more {mnemonic}")
    return lines


def _mnemonic(line: str) -> str:
    return line.split()[0] if line.strip() else ""


def side_by_side(texts: Mapping[str, str], width: int = 46, rows: int = 40) -> str:
    """Loops in columns under their names, folded; what is cut off is said.

    Parameters
    ----------
    texts : mapping
        Title -> text of a loop.
    width, rows : int
        Characters of a column, and its lines.
    """
    columns = []
    for title, text in texts.items():
        lines = folded(text)
        if len(lines) > rows:
            left = len(lines) - rows + 1
            lines = [*lines[: rows - 1], f"    ... {left} more such lines"]
        cells = [title, "-" * (width - 2), *(line.removeprefix("  ") for line in lines)]
        columns.append([cell[: width - 1].ljust(width) for cell in cells])
    height = max(map(len, columns))
    padded = [[*column, *[" " * width] * (height - len(column))] for column in columns]
    return "\n".join("".join(cells).rstrip() for cells in zip(*padded, strict=True))


def explain(layer: LayerProof) -> dict[str, Any]:
    """What a layer's hot loop consists of: a row of a table, counted.

    Parameters
    ----------
    layer : LayerProof
        With a hot loop.
    """
    loop = layer.hot_loop
    count = loop.classes.total()
    return {
        "layer": layer.record.shape,
        "in": layer.precision,
        "multiplied by": layer.instructions,
        "vector (bits)": vector_bits(loop),
        "instructions": count,
        "MACs a pass": loop.macs,
        "MACs an instruction": loop.macs / count,
        "converted": loop.classes["vcvt"],
        "stack": loop.spills,
    }


def sentence(name: str, layer: LayerProof) -> str:
    """The same in words: one line under the assembly."""
    loop = layer.hot_loop
    row = explain(layer)
    kinds = [kind for kind in loop.classes if kind in MULTIPLIES]
    others = loop.classes.total() - sum(loop.classes[kind] for kind in kinds)
    return (
        f"**{name}**: {row['multiplied by']} on vectors of {row['vector (bits)']} bits do "
        f"{loop.macs:,.0f} multiply-accumulates a pass, {row['MACs an instruction']:.1f} for each "
        f"of the loop's {row['instructions']} instructions, {others} of which do not multiply and "
        f"{loop.spills} touch the stack."
    )


def vector_bits(loop: HotLoop) -> int:
    """Width of the widest register that the loop multiplies in; a scalar within one counts 32."""
    lines = [line for line in loop.text.splitlines() if _multiplies(_mnemonic(line))]
    return max(map(_bits, lines), default=0)


def _bits(line: str) -> int:
    if re.match(r"\s+\w+ss\s", line):
        return 32
    if re.search(r"\bv\d+\.", line):
        return 128
    return max((WIDE[name] for name in re.findall(r"%([xyz]mm)", line)), default=64)


def _multiplies(mnemonic: str) -> bool:
    return any(classify(mnemonic, arch) in MULTIPLIES for arch in (X86, AARCH64))
