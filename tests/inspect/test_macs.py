"""Multiply-accumulates and how often they are executed, counted by hand in small functions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import relaxquant as rq
from relaxquant.inspect import ir, macs
from relaxquant.inspect.executions import executions
from relaxquant.inspect.macs import multiply_accumulates
from tests.networks import make

TEXT = (Path(__file__).parent / "data" / "macs.ll").read_text()


@pytest.fixture(scope="module")
def functions():
    return ir.parse(TEXT).parts[0].functions


def executed(function) -> tuple[dict, bool]:
    found = [mac for f in function.reached() for mac in multiply_accumulates(f)]
    times = executions(function, {mac.instruction.block for mac in found})
    sums: Counter = Counter()
    for mac in found:
        sums[mac.precision] += mac.number * times.blocks[mac.instruction.block]
    return dict(sums), times.exact


@pytest.mark.parametrize(
    "name, expected",
    [
        ("dot_and_requantize", {"int8": 12 * 64}),
        ("saturating_pairs", {"int8": 5 * 64}),
        ("float_of_bytes", {"float32": 6 * 7 * 4}),
        ("unrolled", {"int32": 2}),
        ("address", {}),
        ("tables_and_bits", {"look-up": 2 * 64, "bits": 16 * 32}),
        ("parallel", {"float32": 55}),
    ],
)
def test_by_hand(functions, name, expected):
    assert executed(functions[name]) == (expected, True)


def test_a_bound_that_is_data_is_said(functions):
    assert executed(functions["unknown"]) == ({"float32": 1}, False)


def test_a_region_is_reached_through_the_runtime(functions):
    assert [f.name for f in functions["parallel"].reached()] == ["parallel", "region"]


LOOP = """
define i32 @f(ptr %x) {{
entry:
  br label %loop
loop:
  %i = phi i32 [ {start}, %entry ], [ %next, %loop ]
  %acc = phi i32 [ 0, %entry ], [ %sum, %loop ]
  %a = load i32, ptr %x
  %b = load i32, ptr %x
  %p = mul i32 %a, %b
  %sum = add i32 %acc, %p
  {step}
  {test}
  br i1 %more, label %loop, label %exit
exit:
  ret i32 %sum
}}
"""


@pytest.mark.parametrize(
    "start, step, test, passes",
    [
        (0, "%next = add i32 %i, 1", "%more = icmp ne i32 %next, 9", 9),
        (0, "%next = add i32 %i, 1", "%more = icmp slt i32 %i, 9", 10),
        (9, "%next = sub i32 %i, 1", "%more = icmp sgt i32 %next, 0", 9),
        (-4, "%next = add i32 %i, 2", "%more = icmp sle i32 %next, 4", 5),
        (1, "%next = shl i32 %i, 1", "%more = icmp ult i32 %next, 256", 8),
        (256, "%next = lshr i32 %i, 2", "%more = icmp ne i32 %next, 0", 5),
        (-1, "%next = add i32 %i, 1", "%more = icmp ugt i32 %next, 5", 1),
        (-8, "%next = ashr i32 %i, 1", "%more = icmp ne i32 %next, -1", 3),
        (100, "%next = sdiv i32 %i, -3", "%more = icmp ne i32 %next, 0", 5),
        (17, "%next = srem i32 %i, 6", "%more = icmp eq i32 %i, 17", 2),
        (0, "%next = xor i32 %i, 1", "%more = icmp eq i32 %next, 1", 2),
    ],
)
def test_passes_of_a_loop(start, step, test, passes):
    text = LOOP.format(start=start, step=step, test=test)
    function = ir.parse(text).parts[0].functions["f"]
    assert executed(function) == ({"int32": passes}, True)


def test_a_loop_of_two_passes_by_a_boolean():
    text = LOOP.format(
        start=0,
        step="%next = add i32 %i, 0",
        test="%more = phi i1 [ true, %entry ], [ false, %loop ]",
    )
    lines = text.splitlines()
    phi = next(line for line in lines if "%more = phi" in line)
    lines.remove(phi)
    lines.insert(lines.index("loop:") + 1, phi)
    function = ir.parse("\n".join(lines)).parts[0].functions["f"]
    assert executed(function) == ({"int32": 2}, True)


def test_both_ways_of_a_choice_by_data_are_counted_and_said():
    text = """
define i32 @f(ptr %x) {
entry:
  %a = load i32, ptr %x
  %c = icmp eq i32 %a, 0
  br i1 %c, label %yes, label %no
yes:
  %p = mul i32 %a, %a
  %q = mul i32 %a, %a
  %s = add i32 %p, %q
  br label %exit
no:
  %t = mul i32 %a, %a
  %u = mul i32 %a, %a
  %v = add i32 %t, %u
  br label %exit
exit:
  %r = phi i32 [ %s, %yes ], [ %v, %no ]
  ret i32 %r
}
"""
    assert executed(ir.parse(text).parts[0].functions["f"]) == ({"int32": 4}, False)
    early = text.replace("%v = add i32 %t, %u\n  br label %exit", "ret i32 1").replace(
        "%t = mul i32 %a, %a", ""
    ).replace("%u = mul i32 %a, %a", "").replace(", [ %v, %no ]", "")  # fmt: skip
    assert executed(ir.parse(early).parts[0].functions["f"]) == ({"int32": 2}, True)


def test_long_sums_need_no_recursion():
    """A sum of 2000 terms, converted: its product with a float is requantization."""
    adds = "\n".join(f"  %s{i + 1} = add i32 %s{i}, %v" for i in range(2000))
    text = f"""
define float @f(ptr %x, float %scale, float %bias) {{
  %v = load i32, ptr %x
  %s0 = add i32 %v, %v
{adds}
  %real = sitofp i32 %s2000 to float
  %p = fmul float %real, %scale
  %q = fmul float %p, %real
  %r = fadd float %p, %bias
  ret float %r
}}
"""
    assert executed(ir.parse(text).parts[0].functions["f"]) == ({}, True)


@pytest.mark.parametrize("executor, bits", [("graph", 8), ("graph", 2), ("naive", 8)])
def test_functions_that_are_not_read_hold_nothing(executor, bits, monkeypatch):
    """Searching a function's text first only saves time."""
    network, x = make("flatten_dense")
    config = rq.QConfig.best(nbit_weight=bits, nbit_input=bits, nbit_ends=None)
    qmod = rq.quantize(rq.frontends.from_torch(network, x), config, calibration=[x.numpy()])
    library = rq.compile(qmod, executor=executor, cache=False)
    module = ir.parse(library.source("ll"))
    skipped = [f for f in module.functions if not macs._may_multiply(f.text)]
    assert skipped
    monkeypatch.setattr(macs, "_may_multiply", lambda text: True)
    assert not any(multiply_accumulates(function) for function in skipped)
