"""The machine's limits: what is measured, what the loops hold, what is read from the figures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tvm

from relaxquant.errors import InputError, TargetError
from relaxquant.kernels.intrinsics import INSTRUCTION_SETS, instruction_set
from relaxquant.measure import Peak, machine_peak, peak
from tests.kernels.harness import RUNNABLE, target_of


@pytest.fixture(scope="module")
def measured():
    return machine_peak()


def made() -> Peak:
    """A machine of round figures."""
    gmacs = {(peak.FP32, 1): 50.0, (peak.FP32, 2): 95.0, ("dot", 1): 200.0, ("dot", 2): 400.0}
    return Peak("some", (1, 2), gmacs, {1: 20.0, 2: 25.0})


def test_every_instruction_and_thread_count_has_a_rate(measured):
    isa = next(isa for isa in INSTRUCTION_SETS if isa.name == measured.isa)
    assert measured.instructions == [peak.FP32, *(dot.name for dot in isa.dots)]
    assert measured.threads[0] == 1
    assert set(measured.read_gbs) == set(measured.threads)
    pairs = {(name, count) for name in measured.instructions for count in measured.threads}
    assert set(measured.gmacs) == pairs
    assert all(rate > 0 for rate in [*measured.gmacs.values(), *measured.read_gbs.values()])
    assert all(measured.scaling(name) > 0 for name in measured.instructions)


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_loops_do_all_the_arithmetic_they_are_credited_with(name):
    """Each accumulator must have counted every product: nothing was left out as invariant."""
    target = target_of(name)
    isa = instruction_set(target)
    for dot in (None, *isa.dots):
        vectors, pixels, rounds, threads = 2, 3, 5, 2
        taps = 4 if dot else 1
        function = peak._built(
            partial(peak._emit_multiplies, isa, dot, threads, vectors, pixels), target
        )
        data = np.ones((pixels, peak.STEPS, taps), np.uint8 if dot else np.float32)
        weight = np.ones((vectors, isa.lanes * taps), np.int8 if dot else np.float32)
        out = np.zeros((threads, vectors * pixels * isa.lanes), np.int32 if dot else np.float32)
        tensors = [tvm.runtime.tensor(array) for array in (data, weight, out)]
        function(rounds, *tensors)
        np.testing.assert_array_equal(tensors[-1].numpy(), rounds * peak.STEPS * taps)


@pytest.mark.parametrize("name", RUNNABLE)
def test_reading_visits_every_element(name):
    target = target_of(name)
    isa = instruction_set(target)
    data = np.random.default_rng(0).integers(-9, 9, (3, peak.CHUNK)).astype(np.int32)
    sums = tvm.runtime.tensor(np.zeros((3, isa.lanes), np.int32))
    peak._built(partial(peak._emit_reads, isa, 3), target)(tvm.runtime.tensor(data), sums)
    np.testing.assert_array_equal(sums.numpy(), data.reshape(3, -1, isa.lanes).sum(1))


def test_the_stream_is_well_beyond_the_caches(monkeypatch):
    caches = [{"level": 3, "type": "Unified", "bytes": 300 << 20}]
    monkeypatch.setattr(peak, "read_cpu", lambda: {"caches": caches})
    assert peak._stream_bytes() >= 4 * (300 << 20)
    monkeypatch.setattr(peak, "read_cpu", lambda: {"caches": None})
    assert peak._stream_bytes() >= peak.MIN_STREAM_BYTES
    assert peak._stream_bytes() % (4 * peak.CHUNK) == 0


def test_rates_by_hand():
    found = made()
    assert found.scaling(peak.FP32) == pytest.approx(1.9)
    assert found.rate("dot") == 400
    assert found.fastest("fp32") == 95
    assert found.fastest("int8", threads=1) == 200
    assert found.balance("dot") == pytest.approx(16)


def test_the_best_of_two_has_the_higher_of_each_limit():
    low = made()
    high = replace(
        low,
        gmacs={key: rate * (2 if key[0] == "dot" else 0.5) for key, rate in low.gmacs.items()},
        read_gbs={count: rate * 3 for count, rate in low.read_gbs.items()},
    )
    best = low.best(high)
    assert best == high.best(low)
    assert best.rate("dot") == 2 * low.rate("dot")
    assert best.rate(peak.FP32) == low.rate(peak.FP32)
    assert best.read_gbs == high.read_gbs
    with pytest.raises(InputError, match="not of one kind"):
        low.best(replace(low, isa="another"))


def test_what_was_not_measured_is_one_error():
    with pytest.raises(InputError, match=r"'dott' with 2 threads.*did you mean 'dot'"):
        made().rate("dott")
    with pytest.raises(InputError, match=r"threads \(1, 2\)"):
        made().rate("dot", 3)
    with pytest.raises(TargetError, match="knows no CPU 'zen99'"):
        machine_peak("zen99")
    with pytest.raises(InputError, match="threads must be 1 to"):
        machine_peak(threads=10_000)
