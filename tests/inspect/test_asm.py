"""Assembly: counts by hand of files made to fool whoever counts words."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaxquant import InputError
from relaxquant.inspect import asm

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def x86():
    return asm.parse((DATA / "loops_x86.s").read_text())


@pytest.fixture(scope="module")
def aarch64():
    return asm.parse((DATA / "loops_aarch64.s").read_text())


def test_functions_and_their_parts(x86):
    assert x86.arch == "x86"
    assert [(f.name, f.part, len(f.instructions)) for f in x86.functions] == [
        ("vpdpbusd_kernel", 0, 19),
        ("lambda", 0, 5),
        ("lambda", 1, 1),
    ]


def test_classes_by_hand(x86):
    kernel = x86.functions[0]
    assert kernel.count("vpdpbusd", in_loop=True) == kernel.count("vpdpbusd") == 2
    inside = {"vpdpbusd": 2, "vfmadd": 1, "vpadd": 1, "vcvt": 1, "vmul": 1, "other": 8}
    assert kernel.classes(in_loop=True) == inside
    assert kernel.classes(in_loop=False) == {"other": 5}
    assert x86.classes()["vpdpbusd"] == 3
    assert sum(r["in_loops"] + r["outside"] for r in x86.rows()) == 25


def test_loops_by_hand(x86):
    kernel = x86.functions[0]
    assert [(loop.header.labels, loop.depth) for loop in kernel.loops] == [
        ([".LBB0_1"], 1),
        ([".LBB0_2"], 2),
    ]


def test_the_frame_pointer_is_the_stack_only_where_it_is_set(x86):
    kernel, other, _ = x86.functions
    assert (kernel.spills(), kernel.spills(in_loop=True)) == (2, 1)
    assert other.spills() == 1


def test_hot_loop(x86):
    hot = x86.functions[0].hot_loop
    assert (hot.depth, hot.macs, hot.spills) == (2, 128, 1)
    assert hot.classes == {"vpdpbusd": 2, "vpadd": 1, "other": 5}
    assert [line.split()[0] for line in hot.text.splitlines()] == [
        ".LBB0_2:", "vpbroadcastd", "vpdpbusd", "vpdpbusd", "vpaddd", "movl", "addq", "cmpq", "jb",
    ]  # fmt: skip
    assert "#" not in hot.text
    assert x86.functions[1].hot_loop is None
    assert asm.hottest(x86.functions) is hot


def test_functions_reached(x86):
    assert [f.name for f in x86.reached_from("vpdpbusd_kernel")] == ["vpdpbusd_kernel", "lambda"]
    with pytest.raises(InputError, match="no function 'main'"):
        x86.reached_from("main")


def test_aarch64(aarch64):
    (kernel,) = aarch64.functions
    assert aarch64.arch == "aarch64"
    inside = {"sdot": 1, "usdot": 1, "smlal": 1, "mla": 1, "fmla": 1, "other": 3}
    assert kernel.classes(in_loop=True) == inside
    assert kernel.count("cvt", in_loop=False) == 1
    assert (kernel.spills(), kernel.spills(in_loop=True)) == (1, 1)
    assert kernel.hot_loop.macs == 16 + 16 + 8 + 4 + 4


@pytest.mark.parametrize("text", ["", "# nothing\n", "hello world\n"])
def test_text_without_functions(text):
    with pytest.raises(InputError, match="there is no function in this text"):
        asm.parse(text)


@pytest.mark.parametrize(
    "mnemonic, kind",
    [
        ("vpmaddubsw", "vpmaddubsw"),
        ("vpmaddwd", "vpmaddwd"),
        ("pmaddwd", "vpmaddwd"),
        ("vpdpwssd", "vpdpwssd"),
        ("vpmulld", "vpmull"),
        ("vpermb", "look-up"),
        ("vpshufb", "look-up"),
        ("vpermd", ""),
        ("vpopcntd", "vpopcnt"),
        ("vfmadd213ss", "vfmadd"),
        ("vmulss", "vmul"),
        ("vmovss", ""),
        ("vgatherdps", "gather"),
        ("vcvtps2dq", "vcvt"),
        ("imull", "imul"),
    ],
)
def test_mnemonics(mnemonic, kind):
    assert asm.classify(mnemonic, asm.X86) == kind


@pytest.mark.parametrize(
    "operands, macs", [("%zmm0, %zmm1, %zmm2", 16), ("%ymm0, %ymm1, %ymm2", 8), ("%xmm0", 4)]
)
def test_width_of_a_multiply(operands, macs):
    text = f"f:\n.type f,@function\nf:\n vfmadd231ps {operands}\n vmulss %xmm0, %xmm1, %xmm2\n"
    wide, scalar = asm.parse(text).functions[0].instructions
    assert (wide.macs, scalar.macs) == (macs, 1)
