"""LLVM IR: counts by hand of a file made to fool whoever counts words."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from relaxquant import InputError
from relaxquant.inspect import ir

TEXT = (Path(__file__).parent / "data" / "loops.ll").read_text()


@pytest.fixture(scope="module")
def module():
    return ir.parse(TEXT)


def test_parts_functions_and_what_is_none(module):
    assert [list(part.functions) for part in module.parts] == [["two_loops"], ["two_loops"]]


def test_depth_of_each_block(module):
    first, second = module.functions
    depths = {block.name: block.depth for block in first.blocks}
    assert depths == {"entry": 0, "outer": 1, "inner": 2, "tail": 1, "exit": 0}
    assert [(loop.header.name, loop.depth) for loop in first.loops] == [("outer", 1), ("inner", 2)]
    assert second.loops == []


def test_counts_by_hand(module):
    tally = module.tally
    assert tally.count() == 2 + 2 + 8 + 4 + 2 + 2 - 1
    assert tally.count("fmul") == 2
    assert tally.count("fmul", "float", 4, in_loop=True) == 1
    assert tally.count("fmul", "float", 1, in_loop=False) == 1
    assert tally.count("fmul", in_loop=True) == tally.count("fadd") == 1
    assert tally.count(in_loop=True) == 14
    assert tally.count("phi") == 3
    assert tally.count("mul") == 0


def test_stores_and_comparisons_count_by_what_they_take(module):
    assert module.tally.count("store", "float", 4) == 1
    assert module.tally.count("icmp", "i32", 1) == 2


def test_calls_by_name(module):
    assert module.tally.calls == {"llvm.x86.avx512.vpdpbusd.512": 1}
    assert module.tally.count("call", "i32", 16) == 1


def test_rows_add_up(module):
    rows = module.tally.rows()
    assert sum(row["in_loops"] + row["outside"] for row in rows) == module.tally.count()
    assert {(r["opcode"], r["element"], r["lanes"]) for r in rows} >= {("fmul", "float", 4)}


def test_strings_are_apart(module):
    assert module.strings == ['expects int8 "; not uint8 int32']


def test_an_instruction_keeps_its_module_alive():
    """LLVM's memory is freed with the last Python object that stands for a part of it."""
    instruction = next(iter(ir.parse(TEXT).functions[1].instructions))
    gc.collect()
    assert instruction.text.startswith("%1 = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(")


@pytest.mark.parametrize("text", ["", " \n\n"])
def test_empty_text(text):
    with pytest.raises(InputError, match=r"the text is empty: take it whole from lib\.source"):
        ir.parse(text)


def test_text_without_functions():
    with pytest.raises(InputError, match="without any function that has a body"):
        ir.parse("; ModuleID = 'x'\ndeclare void @f()\n")


@pytest.mark.parametrize("share", [0.35, 0.5, 0.75, 0.95])
def test_text_that_ends_early(share):
    with pytest.raises(InputError, match=r"LLVM IR ends early: take it whole"):
        ir.parse(TEXT[: int(share * len(TEXT))])


def test_text_that_is_no_ir():
    with pytest.raises(InputError, match=r"LLVM cannot read this as LLVM IR.*\n.*expected"):
        ir.parse(TEXT.replace("%p = fmul", "%p = fmull"))
