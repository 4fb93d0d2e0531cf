"""Classes of assembly instructions, by mnemonic, and what they multiply."""

from __future__ import annotations

import re
from functools import cache

X86, AARCH64 = "x86", "aarch64"

# First match counts. Widening by vpmaddwd with ones cannot be told from multiplying by it: what
# the operands are is seen in LLVM IR only (`macs`).
_X86 = {
    "vpdpbusd": r"v?pdpbusds?",
    "vpdpwssd": r"v?pdpwssds?",
    "vpmaddubsw": r"v?pmaddubsw",
    "vpmaddwd": r"v?pmaddwd",
    "vpmull": r"v?pmul(?:l[wdq]|h\w*|u?dq)",
    "imul": r"i?mul[bwlq]?|mulx[lq]?",
    "vfmadd": r"vfn?m(?:add|sub)(?:132|213|231)[ps][sdh]",
    "vmul": r"v?mul[ps][sdh]",
    "vadd": r"v?(?:add|sub)[ps][sdh]",
    "vdiv": r"v?div[ps][sdh]",
    "vpadd": r"v?p(?:add|sub)(?:u?s)?[bwdq]",
    "look-up": r"v?pshufb|vperm[it]?2?b",
    "vpopcnt": r"vpopcnt[bwdq]|popcnt[wlq]?",
    "vcvt": r"v?cvt\w+",
    "gather": r"vp?gather\w+",
    "scatter": r"vp?scatter\w+",
    "prefetch": r"prefetch\w+",
}
_AARCH64 = {
    "sdot": r"[su]dot",
    "usdot": r"usdot|sudot",
    "mmla": r"(?:s|u|us|bf)mmla",
    "smlal": r"[su]ml[as]l2?",
    "smull": r"[su]mull2?",
    "mla": r"ml[as]",
    "mul": r"mul|madd|msub|[su]maddl|[su]msubl|[su]mulh",
    "fmla": r"fml[as]|fmlal2?|fn?m(?:add|sub)",
    "fmul": r"fn?mul",
    "fadd": r"f(?:add|sub|addp)",
    "fdiv": r"fdiv",
    "add": r"(?:add|sub)[pv]?|[su]a(?:ddl[pv]?2?|ddw2?|dalp)",
    "look-up": r"tb[lx]",
    "cnt": r"cnt",
    "cvt": r"fcvt\w*|[su]cvtf",
    "gather": r"ld1[bhwd]",
    "prefetch": r"prfu?m",
}
_TABLES = {
    arch: [(name, re.compile(pattern)) for name, pattern in table.items()]
    for arch, table in ((X86, _X86), (AARCH64, _AARCH64))
}
# Multiply-accumulates of one instruction for each 128 bits of its operands: of integers, of floats.
INTEGER_MULTIPLIES = {
    "vpdpbusd": 16, "vpdpwssd": 8, "vpmaddubsw": 16, "vpmaddwd": 8, "vpmull": 4,
    "sdot": 16, "usdot": 16, "mmla": 32, "smlal": 8, "smull": 8, "mla": 4,
}  # fmt: skip
FLOAT_MULTIPLIES = {"vfmadd": 4, "vmul": 4, "fmla": 4, "fmul": 4}
# What multiplies nothing and stands for multiplications nevertheless.
INSTEAD = {"look-up": 16, "vpopcnt": 4, "cnt": 16}
# Words for what multiplies in CUDA's text: the last one a product and a sum of scalars.
DP4A, MMA, MULTIPLY_ADD = ON_GPUS = ("dp4a", "mma", "multiply-add")
MULTIPLIES = INTEGER_MULTIPLIES | FLOAT_MULTIPLIES | INSTEAD


@cache
def classify(mnemonic: str, arch: str) -> str:
    """The class of a mnemonic; empty where it belongs to none."""
    return next((name for name, pattern in _TABLES[arch] if pattern.fullmatch(mnemonic)), "")


def width(mnemonic: str, operands: str, arch: str) -> float:
    """Operand width in units of 128 bits, of scalars less than one."""
    if arch == X86:
        if classify(mnemonic, arch) in FLOAT_MULTIPLIES and mnemonic[-2] == "s":
            return 0.25  # a scalar in a vector register
        wide = re.findall(r"%([xyz])mm", operands)
        return max(({"x": 1, "y": 2, "z": 4}[letter] for letter in wide), default=0.25)
    return 1 if re.search(r"\bv\d+\.", operands) else 0.25
