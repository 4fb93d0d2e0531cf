"""Multiply-accumulates in LLVM IR: what multiplies, in which type, and is summed up.

Names are not trusted, nor is a lone multiplication: requantization multiplies an int32 sum by a
float, addresses are computed by multiplying integers, and neither is a multiply-accumulate. What
counts follows the data:

- A *dot product*, an intrinsic that sums products by itself (``vpdpbusd``, ``pmaddwd``, ``sdot``),
  unless a factor is constant: ``pmaddwd`` by ones widens, it does not multiply.
- A *product*, integer or float (``mul``, ``fmul``, ``fma``), of two factors neither of which is
  constant, that is added to an accumulator: a value that goes round a loop through additions,
  or through memory at one address. Where loops were unrolled, a sum of two products or more. A
  float product whose factor was converted from an integer *sum* is requantization and does not
  count; one converted from narrow integers is a float multiply-accumulate all the same.
- What stands for products: *look-ups* in tables that are not constant, and *counts of bits* of a
  conjunction, where they are summed up.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .ir import Instruction, IRFunction, Value
from .loops import components

LOOK_UP, BITS = "look-up", "bits"
INTEGER = ("int8", "int16", "int32", LOOK_UP, BITS)
FLOATS = {"half": "float16", "bfloat": "bfloat16", "float": "float32", "double": "float64"}


@dataclass(frozen=True)
class _Dot:
    """Products for each lane of a result, in which type, and whether operand 0 is the sum."""

    per_lane: int
    precision: str
    accumulates: bool


_DOTS = [
    (re.compile(r"llvm\.x86\.\w+\.vpdpb\w+\.\d+"), _Dot(4, "int8", True)),
    (re.compile(r"llvm\.x86\.\w+\.vpdpw\w+\.\d+"), _Dot(2, "int16", True)),
    (re.compile(r"llvm\.x86\.\w+\.pmadd\.?ub.*"), _Dot(2, "int8", False)),
    (re.compile(r"llvm\.x86\.\w+\.pmadd\.?w.*"), _Dot(2, "int16", False)),
    (re.compile(r"llvm\.aarch64\.neon\.(?:s|u|us|su)dot\..*"), _Dot(4, "int8", True)),
    (re.compile(r"llvm\.aarch64\.neon\.(?:s|u|us)mmla\..*"), _Dot(8, "int8", True)),
]
_LOOKUP = re.compile(r"llvm\.(?:x86\.\w+\.(?:permvar\.qi|pshuf\.b)|aarch64\.neon\.tb[lx]).*")
# What a function's text must hold, but for float products that are added by themselves.
_MULTIPLIES = re.compile(
    r" mul (?:n[us]w )*(?:<\d+ x )?i(?:8|16|32)\b|@llvm\.(?:fma|fmuladd|ctpop)\."
    r"|@llvm\.(?:x86|aarch64)\S*(?:vpdp|pmadd|dot\.|mmla|permvar\.qi|pshuf\.b|\.tb[lx]|mull\.)"
)
_FMA = re.compile(r"llvm\.fma(?:uladd)?\.|llvm\.fmuladd\.")
_WIDENING_PRODUCT = re.compile(r"llvm\.aarch64\.neon\.[su]mull\.")
_CONVERT = re.compile(r"llvm\.x86\.\S*cvt\S*dq2ps")
# Sums, and what only passes on or unpacks a sum.
_ADD = re.compile(r"llvm\.(?:[su]add\.sat|x86\S*padds|x86\S*psad\.bw|vector\.reduce\.f?add)\S*")
_ADDS = {"add", "sub", "fadd", "fsub"}
_PASSES = {"sext", "zext", "trunc", "bitcast", "freeze", "fpext", "fptrunc"}
_SHUFFLES = {"shufflevector", "extractelement", "insertelement"}
_BY_CONSTANT = {"shl", "lshr", "ashr", "and", "or", "mul"}
NARROW = ("i8", "i16")


@dataclass(frozen=True)
class Mac:
    """An instruction that multiplies and accumulates.

    Attributes
    ----------
    instruction : Instruction
    precision : str
        Type that is multiplied: ``"int8"``, ``"int16"``, ``"int32"``, ``"float32"`` ..., or
        ``"look-up"`` or ``"bits"``.
    number : int
        Multiply-accumulates of one execution; bytes looked up, or pairs of bits.
    """

    instruction: Instruction
    precision: str
    number: int


def multiply_accumulates(function: IRFunction) -> list[Mac]:
    """All multiply-accumulates of a function, in program order; see the module's text."""
    if not _may_multiply(function.text):
        return []
    instructions = list(function.instructions)
    found = [mac for one in instructions for mac in [_candidate(one)] if mac]
    if not found:
        return []
    summed = _Sums(function, {mac.instruction for mac in found})
    return [mac for mac in found if _sums_itself(mac) or summed.holds(mac.instruction)]


def _may_multiply(text: str) -> bool:
    """Whether it is worth reading a function: never False for one with a multiply-accumulate."""
    floats = " fmul " in text and any(word in text for word in (" fadd ", " fsub ", ".fadd."))
    return floats or bool(_MULTIPLIES.search(text))


def dot_of(one: Instruction) -> _Dot | None:
    """What an intrinsic sums, None for all else."""
    return next((dot for name, dot in _DOTS if name.fullmatch(one.callee)), None)


def _sums_itself(mac: Mac) -> bool:
    return mac.precision == BITS or dot_of(mac.instruction) is not None


def _candidate(one: Instruction) -> Mac | None:
    factors = _factors(one)
    if not factors or any(_is_constant(factor) for factor in factors):
        return None
    if one.opcode in ("fmul", "call") and one.element in FLOATS:
        if any(_is_converted_sum(factor) for factor in factors):
            return None
        return Mac(one, FLOATS[one.element], one.lanes)
    dot = dot_of(one)
    if dot:
        return Mac(one, dot.precision, dot.per_lane * one.lanes)
    if _LOOKUP.match(one.callee):
        return Mac(one, LOOK_UP, one.lanes)
    if one.callee.startswith("llvm.ctpop."):
        return Mac(one, BITS, one.lanes * int(one.element[1:]))
    return Mac(one, f"int{_factor_bits(factors)}", one.lanes)


def _factors(one: Instruction) -> tuple:
    """What is multiplied, looked up in each other, or met bit by bit; empty for all else."""
    if one.opcode == "fmul" or (one.opcode == "mul" and one.element in ("i8", "i16", "i32")):
        return one.operands
    if not one.callee:
        return ()
    if dot := dot_of(one):
        return one.operands[1:3] if dot.accumulates else one.operands[:2]
    if _FMA.match(one.callee) or _LOOKUP.match(one.callee) or _WIDENING_PRODUCT.match(one.callee):
        return one.operands[:2]
    if one.callee.startswith("llvm.ctpop.") and one.lanes > 1:
        both = one.operands[0]
        is_pair = isinstance(both, Instruction) and both.opcode in ("and", "xor")
        return both.operands if is_pair else ()
    return ()


def _factor_bits(factors: Iterable) -> int:
    """Bits of the wider factor in the type in which it is multiplied."""
    return max(int(factor.element[1:]) for factor in factors)


def _is_constant(value) -> bool:
    if isinstance(value, Instruction):
        passes = value.opcode in _PASSES | _SHUFFLES
        return passes and all(_is_constant(operand) for operand in value.operands)
    return isinstance(value, Value) and value.kind == "constant"


def _is_converted_sum(value) -> bool:
    """Whether a float was converted from an integer that is a sum."""
    while isinstance(value, Instruction) and value.opcode in _PASSES | _SHUFFLES:
        value = value.operands[0]
    if not isinstance(value, Instruction):
        return False
    converts = value.opcode in ("sitofp", "uitofp") or _CONVERT.match(value.callee)
    return bool(converts) and _is_sum(value.operands[0])


def _is_sum(value) -> bool:
    """Whether an integer comes from an accumulator, or from memory wider than an activation."""
    return any(
        dot_of(one) or (one.opcode in ("phi", "load") and one.element not in NARROW)
        for one in _sources(value)
    )


def _sources(value) -> Iterator[Instruction]:
    """Instructions that a value is computed from, itself among them, up to loads."""
    work, seen = [value], set()
    while work:
        one = work.pop()
        if isinstance(one, Instruction) and one not in seen:
            seen.add(one)
            yield one
            if one.opcode != "load":
                work += one.operands


class _Sums:
    """Which products of a function are summed up.

    An edge leads from a term to its sum. A component of the graph that holds an addition and closes
    on itself, through a loop's phi or through memory, is an accumulator; a product is accumulated
    if it leads to one.
    """

    def __init__(self, function: IRFunction, products: set[Instruction]):
        instructions = list(function.instructions)
        loops = {loop.header: loop for loop in function.loops}
        edges: dict[Instruction, list] = {one: [] for one in instructions}
        for one in instructions:
            for term in _terms(one):
                # An index that starts at a product is no sum of it.
                starts = one.opcode == "phi" and one.block in loops and one.element not in FLOATS
                if isinstance(term, Instruction) and not (
                    starts and term.block not in loops[one.block].nodes
                ):
                    edges[term].append(one)
        for store, load in _through_memory(instructions):
            edges[store].append(load)
        self.accumulated = _leading_to(edges, _accumulators(edges))
        self.unrolled = _in_sums_of_several(instructions, products)

    def holds(self, product: Instruction) -> bool:
        """Whether a product is accumulated, in a loop or in a sum that was unrolled."""
        return product in self.accumulated or product in self.unrolled


def _terms(one: Instruction) -> tuple:
    """Operands that are terms of what an instruction gives, or are it in another form."""
    if one.opcode in _ADDS or one.opcode in _PASSES or one.opcode == "phi":
        return one.operands
    if one.opcode in _SHUFFLES:
        return one.operands[:2]
    if one.opcode == "select":
        return one.operands[1:]
    if one.opcode in _BY_CONSTANT and any(_is_constant(o) for o in one.operands):
        return one.operands
    if one.opcode == "store":
        return one.operands[:1]
    if not one.callee:
        return ()
    if _FMA.match(one.callee):
        return one.operands[2:3]
    dot = dot_of(one)
    if dot and dot.accumulates:
        return one.operands[:1]
    is_widening = dot is not None and any(_is_constant(o) for o in one.operands[:2])
    return one.operands[:-1] if is_widening or _ADD.match(one.callee) else ()


def _is_addition(one: Instruction) -> bool:
    return one.opcode in _ADDS or (one.opcode == "call" and bool(_terms(one)))


def _through_memory(instructions: list[Instruction]) -> Iterable[tuple[Instruction, Instruction]]:
    """(store, load) of one pointer."""
    loads = defaultdict(list)
    for one in instructions:
        if one.opcode == "load":
            loads[one.operands[0]].append(one)
    for one in instructions:
        if one.opcode == "store":
            for load in loads[one.operands[1]]:
                yield one, load


def _accumulators(edges: dict[Instruction, list]) -> set[Instruction]:
    return {
        one
        for component in components(edges)
        if len(component) > 1 and any(_is_addition(one) for one in component)
        for one in component
    }


def _leading_to(edges: dict[Instruction, list], goal: set[Instruction]) -> set[Instruction]:
    backwards = defaultdict(list)
    for one, sums in edges.items():
        for other in sums:
            backwards[other].append(one)
    reached, work = set(goal), list(goal)
    while work:
        for one in backwards[work.pop()]:
            if one not in reached:
                reached.add(one)
                work.append(one)
    return reached


def _in_sums_of_several(
    instructions: list[Instruction], products: set[Instruction]
) -> set[Instruction]:
    """Products that are terms of one sum with another product, without a loop."""
    terms: dict[Instruction, list] = {}
    for one in instructions:
        if one.opcode in ("sext", "zext") or _is_addition(one):
            terms[one] = [term for term in _terms(one) if isinstance(term, Instruction)]
    some: dict[Instruction, set] = {}  # of each sum its products, two at most
    for one in instructions:  # of terms within a loop's iteration the definitions come first
        found = {one} & products
        for term in terms.get(one, ()):
            found |= some.get(term, set())
        some[one] = set(list(found)[:2])
    work = [one for one in instructions if len(some[one]) > 1]
    reached = set(work)
    while work:
        for term in terms.get(work.pop(), ()):
            if term not in reached and some.get(term):
                reached.add(term)
                work.append(term)
    group = reached & products
    return set() if _is_address(group) else group


def _is_address(group: set[Instruction]) -> bool:
    """Whether products multiply what no memory holds: indices."""
    factors = [factor for one in group for factor in _factors(one)]
    loads = (one for factor in factors for one in _sources(factor) if one.opcode == "load")
    return all(load.element == "ptr" for load in loads)
