"""What LLVM's integer instructions compute, of scalars that are known."""

from __future__ import annotations

import re

from .ir import Instruction

_MINMAX = re.compile(r"llvm\.([su])(min|max)\.")


def bits(element: str) -> int:
    """Bits of an integer type."""
    return int(element[1:])


def wrapped(number: int, element: str) -> int:
    """A number as a signed integer of a type; i1 is 0 or 1."""
    size = bits(element)
    number &= (1 << size) - 1
    return number - (1 << size) if size > 1 and number >> (size - 1) else number


def half_known(opcode: str, numbers: list) -> int | None:
    """What follows from one operand alone."""
    if 0 in numbers and opcode in ("and", "mul"):
        return 0
    return None


def computed(one: Instruction, numbers: list[int]) -> int | None:
    """What an instruction gives for scalar integers; None for opcodes that decide on no branch."""
    if one.opcode == "icmp":
        return _compared(one, *numbers)
    if one.opcode == "call":
        kind = _MINMAX.match(one.callee)
        if not kind or len(numbers) != 2:
            return None
        sizes = [unsigned(n, one.element) if kind[1] == "u" else n for n in numbers]
        pick = min(sizes) if kind[2] == "min" else max(sizes)
        return wrapped(pick, one.element)
    if one.opcode in ("zext", "sext", "trunc", "freeze"):
        first = one.operands[0]
        compares = isinstance(first, Instruction) and first.opcode in ("icmp", "fcmp")
        source = "i1" if compares else first.element
        number = unsigned(numbers[0], source) if one.opcode == "zext" else numbers[0]
        if one.opcode == "sext" and source == "i1":
            number = -number
        return wrapped(number, one.element)
    operation = _OPERATIONS.get(one.opcode)
    if operation is None or len(numbers) != 2:
        return None
    left, right = numbers
    if one.opcode in ("udiv", "urem", "lshr"):
        left, right = unsigned(left, one.element), unsigned(right, one.element)
    if one.opcode in ("sdiv", "udiv", "srem", "urem") and right == 0:
        return None
    if one.opcode in ("shl", "lshr", "ashr") and not 0 <= right < bits(one.element):
        return None
    return wrapped(operation(left, right), one.element)


def unsigned(number: int, element: str) -> int:
    """A number as an unsigned integer of a type."""
    return number & ((1 << bits(element)) - 1)


def _truncating(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_OPERATIONS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << b,
    "lshr": lambda a, b: a >> b,
    "ashr": lambda a, b: a >> b,
    "udiv": lambda a, b: a // b,
    "urem": lambda a, b: a % b,
    "sdiv": _truncating,
    "srem": lambda a, b: a - b * _truncating(a, b),
}
_COMPARISONS = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
}


def _compared(one: Instruction, left: int, right: int) -> int:
    predicate = one.predicate
    if predicate[0] == "u":
        left, right = unsigned(left, one.element), unsigned(right, one.element)
    return int(_COMPARISONS[predicate[-2:]](left, right))
