"""Assembly for reading: folding, columns, and the sentence under it."""

from __future__ import annotations

from collections import Counter

from relaxquant.inspect.asm import HotLoop
from relaxquant.inspect.proof import LayerProof
from relaxquant.lower import KernelRecord
from workbook import loop_text

LOOP = """\
.LBB0_1:
    vmovups        (%rax), %zmm0
    vpdpbusd       %zmm1, %zmm0, %zmm2
    vpdpbusd       %zmm1, %zmm0, %zmm3
    vpdpbusd       %zmm1, %zmm0, %zmm4
    vpdpbusd       %zmm1, %zmm0, %zmm5
    decq           %rax
    jne            .LBB0_1"""


def test_long_rows_of_equal_instructions_are_folded():
    lines = loop_text.folded(LOOP)
    assert [line.split()[0] for line in lines] == [
        ".LBB0_1:", "vmovups", "vpdpbusd", "vpdpbusd", "...", "decq", "jne",
    ]  # fmt: skip
    assert lines[4].strip() == "... 2 more vpdpbusd"


def test_a_row_that_would_only_lose_one_line_is_kept():
    lines = ["    nop"] * 3
    assert loop_text.folded("\n".join(lines)) == lines


def test_columns_stand_side_by_side_and_say_what_is_cut():
    text = loop_text.side_by_side({"left": LOOP, "right": "    ret"}, width=30, rows=4)
    lines = text.splitlines()
    assert lines[0].split() == ["left", "right"]
    assert lines[2].index("ret") >= 30
    assert "4 more such lines" in lines[-1]
    assert len(lines) == 2 + 4


def layer(text: str, classes: dict, macs: float) -> LayerProof:
    loop = HotLoop("f", 2, Counter(classes), macs, 1, text)
    return LayerProof(
        KernelRecord("f", "l", "conv2d", "s", "", "", ""), 9, {"int8": 9}, True, hot_loop=loop
    )


def test_the_sentence_is_counted():
    found = loop_text.sentence("ours", layer(LOOP, {"vpdpbusd": 4, "other": 3}, 256.0))
    assert found.startswith("**ours**: 4 vpdpbusd on vectors of 512 bits do 256 multiply-acc")
    assert "36.6 for each of the loop's 7 instructions" in found
    assert "3 of which do not multiply and 1 touch the stack" in found


def test_a_scalar_in_a_vector_register_is_32_bits():
    text = "    vfmadd231ss    (%rax), %xmm1, %xmm0\n    vaddps   %zmm0, %zmm1, %zmm2"
    assert loop_text.vector_bits(layer(text, {"vfmadd": 1}, 1.0).hot_loop) == 32


def test_neon_registers_are_128_bits():
    text = "    sdot           v0.4s, v1.16b, v2.4b[0]"
    assert loop_text.vector_bits(layer(text, {"sdot": 1}, 16.0).hot_loop) == 128
