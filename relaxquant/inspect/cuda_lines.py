"""One line of the CUDA C++ that TVM writes: what it assigns, reads, multiplies and converts.

TVM writes a statement a line, a vector's arithmetic component by component, and says of every
variable what type it is. That is all that is relied on here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container

WARP = 32
SIZES = {
    **dict.fromkeys(("signed char", "unsigned char", "char", "uchar", "bool"), 1),
    **dict.fromkeys(("short", "ushort", "half", "nv_bfloat16"), 2),
    **dict.fromkeys(("int", "uint", "float"), 4),
    **dict.fromkeys(("int64_t", "longlong", "long long", "double"), 8),
}
FLOATS = ("float", "half", "double")
# Rows, columns, depth, and the type of the left operand.
_MMA = re.compile(r"mma\.sync\.aligned\.m(\d+)n(\d+)k(\d+)\.row\.col\.(?:s32|f32|f16)\.(\w+)\.")
_MMA_TYPES = {"u8": "int8", "s8": "int8", "f16": "float16"}
_TYPE = r"(?:(?:const |unsigned |signed |long )*\w+)"
_DECLARED = re.compile(
    rf"^(?:__shared__ )?(?:alignas\(\d+\) )?({_TYPE}) (\w+)(?:\[\d+\])?(?: = .*)?;$"
)
_FRAGMENT = re.compile(
    r"^nvcuda::wmma::fragment<[\w:]+(?:, \d+){3}, ([\w ]+?)(?:, [\w:]+)?> (\w+)\["
)
_LOOP = re.compile(
    r"^for \(\w+ (\w+) = (?:\(int64_t\))?0; \1 < (?:\(int64_t\))?(.+?); \+\+\1\) \{$"
)
_CAST = re.compile(
    r"\((?:float|half|double|u?int|u?short|u?char|(?:un)?signed char|int64_t)\)"
    r"(?!-?\d|\(?(?:thread|block)Idx)(?=[\w(])"
)
_CONVERT = re.compile(r"__(?:float2int_r\w|half2float|float2half\w*)\(")
_PRODUCT = re.compile(r"(?<=[\w)@]) ?\* ?(?=[\w(@])")
_FMA = re.compile(r"\b__fmaf_rn\(")
_POINTER = re.compile(r"\*\(([\w ]+?)\*\)\(")


def scalar(kind: str) -> str:
    """Type of a vector's elements, or the type itself: ``"float"`` of ``"float4"``."""
    plain = kind.replace("const ", "").strip()
    return plain if plain in SIZES else re.sub(r"\d+$", "", plain)


def size(kind: str) -> int:
    """Bytes of a scalar or vector type; 0 for one that is not known."""
    count = re.search(r"(\d+)$", kind)
    lanes = int(count[1]) if count and kind not in SIZES else 1
    return SIZES.get(scalar(kind), 0) * lanes


def declaration(line: str) -> tuple[str, str]:
    """Scalar type and name of the variable that a line declares; empty if it declares none."""
    found = _FRAGMENT.match(line) or _DECLARED.match(line)
    return (scalar(found[1]), found[2]) if found and found[1] != "return" else ("", "")


def loop_bound(line: str) -> str | None:
    """Bound of the loop that a line opens, from 0 on; None if it opens none."""
    found = _LOOP.match(line)
    return found[2] if found else None


def assignment(line: str) -> tuple[str, str, str]:
    """The variable that a line assigns to, the place it writes, and the value; else empty."""
    at = line.find(" = ")
    if at < 0 or line.startswith(("if ", "for ", "}")):
        return "", "", ""
    left, value = line[:at], line[at + 3 :].removesuffix(";")
    pointer = re.match(r"\*\([\w ]+?\*\)\((\w+)", left)
    name = pointer or re.match(r"(?:[\w ]+ )?(\w+)(?:\[|\.\w+$|$)", left)
    return name[1] if name else "", left, value


def accesses(line: str, names: Container[str]) -> list[tuple[str, int]]:
    """(array, bytes of a vector or 0) of every access of the arrays ``names``, from the left."""
    found = []
    for match in re.finditer(r"\b(\w+)(\[| \+|\))", line):
        if match[1] in names:
            before = re.search(r"\*\(([\w ]+?)\*\)\($", line[: match.start()])
            if before or match[2] == "[":
                found.append((match[1], size(before[1]) if before else 0))
    return found


def without_addresses(text: str) -> str:
    """The text without what stands in brackets, and in pointers that are read through."""
    result, at = [], 0
    while at < len(text):
        pointer = _POINTER.match(text, at)
        if pointer or text[at] == "[":
            result.append("@" if pointer else "")
            at = _closing(text, pointer.end() - 1 if pointer else at) + 1
        else:
            result.append(text[at])
            at += 1
    return "".join(result)


def conversions(plain: str) -> int:
    """Conversions between types in a value without its addresses."""
    return len(_CAST.findall(plain)) + len(_CONVERT.findall(plain))


def products(plain: str) -> int:
    """Multiplications in a value without its addresses."""
    return len(_PRODUCT.findall(plain)) + len(_FMA.findall(plain))


def product_added(line: str) -> str:
    """The factors of ``a = a + b * c``, or of ``a = fma(b, c, a)``; empty for other lines."""
    _, left, value = assignment(line)
    if not left:
        return ""
    if value.startswith("__fmaf_rn(") and value.endswith(f", {left})"):
        return value[len("__fmaf_rn(") : -len(f", {left})")]
    start = f"({left} + "
    factors = value[len(start) : -1] if value.startswith(start) else ""
    return factors if _PRODUCT.search(without_addresses(factors)) else ""


def matrix_products(text: str) -> tuple[int, Counter]:
    """``mma.sync`` in a text: instructions, and a thread's multiply-accumulates by precision."""
    found: Counter = Counter()
    shapes = _MMA.findall(text)
    for rows, columns, depth, kind in shapes:
        shared = int(rows) * int(columns) * int(depth) // WARP
        found[_MMA_TYPES.get(kind, kind)] += shared
    return len(shapes), found


def _closing(text: str, at: int) -> int:
    """Where the bracket that opens at ``at`` closes."""
    opener, closer, depth = text[at], {"(": ")", "[": "]"}[text[at]], 0
    for i in range(at, len(text)):
        depth += (text[i] == opener) - (text[i] == closer)
        if not depth:
            return i
    return len(text)
