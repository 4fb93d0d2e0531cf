"""The measuring loop, driven by a clock that only the timed functions move."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest

from relaxquant.errors import InputError
from relaxquant.measure import aa_control, interleaved

MS = 1_000_000


class FakeClock:
    """Nanoseconds that pass only when a variant says so; counts how often it was read."""

    def __init__(self):
        self.now = 0
        self.reads = 0

    def __call__(self) -> int:
        self.reads += 1
        return self.now

    def variant(self, *durations_ms: float, log: list | None = None, name: str = ""):
        """A function that takes these times, call after call, the last one for ever after."""
        left = list(durations_ms)

        def run():
            self.now += int((left.pop(0) if len(left) > 1 else left[0]) * MS)
            if log is not None:
                log.append(name)

        return run


@pytest.fixture
def clock():
    return FakeClock()


def test_samples_are_seconds_a_call(clock):
    timings = interleaved({"a": clock.variant(40), "b": clock.variant(80)}, clock=clock)
    assert timings.samples["a"].dtype == np.float64
    np.testing.assert_allclose(timings.samples["a"], np.full(10, 0.040))
    assert timings.ratio("b", "a").value == pytest.approx(2.0)
    assert timings.ratio("b", "a").verdict == "slower"


def test_short_calls_are_averaged_and_long_ones_are_not(clock):
    variants = {"quick": clock.variant(0.5), "long": clock.variant(700)}
    timings = interleaved(variants, min_sample_s=0.02, clock=clock)
    assert timings.inner["quick"] * 0.5 >= 20
    assert timings.inner["quick"] * 0.5 <= 40
    assert timings.inner["long"] == 1
    np.testing.assert_allclose(timings.samples["quick"], 0.0005)


def test_each_round_runs_every_variant_once_in_an_order_of_its_own(clock):
    log = []
    # Too long for a lead-in call, so that every call in a round is a timed one.
    variants = {name: clock.variant(300, log=log, name=name) for name in "abcd"}
    timings = interleaved(variants, rounds=12, clock=clock)
    assert all(sorted(turn) == list("abcd") for turn in timings.order)
    assert len(set(timings.order)) > 1
    assert log[-4 * 12 :] == [name for turn in timings.order for name in turn]


def test_order_follows_from_the_seed():
    def order(seed):
        clock = FakeClock()
        return interleaved(
            {name: clock.variant(30) for name in "abc"}, seed=seed, clock=clock
        ).order

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_quick_variants_get_one_untimed_call_before_a_sample(clock):
    log = []
    # 30 ms: one call a sample. The last 20 calls are 10 rounds of lead-in and sample.
    variants = {"a": clock.variant(30, log=log, name="a")}
    timings = interleaved(variants, warmup=3, clock=clock)
    checked, counted, sizing = 1, 3, 1
    assert timings.warmup["a"].calls == counted + sizing
    assert len(log) == checked + counted + sizing + 2 * 10


def test_warm_up_goes_on_until_stable(clock):
    falling = [300, 200, 150, 120, 100, 80, 60, 50]
    timings = interleaved({"a": clock.variant(*falling, 40)}, clock=clock)
    np.testing.assert_allclose(timings.samples["a"], 0.040)
    assert timings.warmup["a"].stable is True
    assert timings.warmup["a"].calls >= len(falling) - 1


def test_warm_up_that_never_settles_ends_and_says_so(clock):
    restless = [30 if i % 2 else 60 for i in range(500)]
    timings = interleaved({"a": clock.variant(*restless)}, clock=clock)
    assert timings.warmup["a"].stable is False
    assert timings.warmup["a"].calls <= 40


def test_warm_up_of_a_very_slow_variant_is_bounded_in_time(clock):
    timings = interleaved({"a": clock.variant(9000)}, clock=clock)
    assert timings.warmup["a"].calls == 2
    assert timings.warmup["a"].stable is False


def test_a_counted_warm_up_judges_nothing(clock):
    timings = interleaved({"a": clock.variant(30)}, warmup=0, clock=clock)
    assert timings.warmup["a"].stable is None


def test_outputs_are_checked_before_any_time_is_read(clock):
    seen = {}

    def check(name, output):
        assert clock.reads == 0
        seen[name] = output

    interleaved({"a": lambda: "x", "b": lambda: "y"}, check=check, min_sample_s=0, clock=clock)
    assert seen == {"a": "x", "b": "y"}


def test_a_refused_output_stops_everything(clock):
    with pytest.raises(InputError, match="refused the output of 'b'"):
        interleaved({"a": lambda: 1, "b": lambda: 2}, check=lambda name, out: out == 1, clock=clock)
    assert clock.reads == 0


def test_errors_name_the_variant(clock):
    def broken():
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel") as caught:
        interleaved({"fine": clock.variant(30), "bad": broken}, clock=clock)
    assert "'bad'" in caught.value.__notes__[0]


def test_garbage_collector_is_off_inside_samples_only(clock):
    states = []

    def variant():
        clock.now += 300 * MS
        states.append(gc.isenabled())

    assert gc.isenabled()
    interleaved({"a": variant}, rounds=10, clock=clock)
    assert gc.isenabled()
    assert states[0] is True  # the call whose output is checked
    assert not any(states[1:])


def test_aa_control_builds_twice(clock):
    built = []

    def build():
        built.append(clock.variant(30))
        return built[-1]

    control = aa_control("int8", build)
    assert list(control) == ["int8", "int8 (A/A)"]
    assert list(control.values()) == built
    assert len(built) == 2


def test_progress_is_silent_unless_asked_for(clock, capsys):
    interleaved({"a": clock.variant(30)}, clock=clock)
    assert capsys.readouterr().out == ""
    interleaved({"a": clock.variant(30)}, clock=clock, progress=True)
    assert "timing" in capsys.readouterr().out


def test_the_real_clock_gives_positive_samples():
    timings = interleaved({"sum": np.ones(1000).sum}, min_sample_s=0.002)
    assert timings.samples["sum"].shape == (10,)
    assert (timings.samples["sum"] > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variants": {}}, "no variants"),
        ({"variants": {"a": 3}}, "'a' cannot be called: it is a int"),
        ({"rounds": 9}, "at least 10, got 9"),
        ({"rounds": 0, "allow_few_rounds": True}, "at least 10, got 0"),
        ({"warmup": "forever"}, "'forever'"),
        ({"warmup": True}, "True"),
        ({"warmup": -1}, "-1"),
        ({"min_sample_s": float("nan")}, "min_sample_s"),
    ],
)
def test_bad_input_gets_one_clear_error(clock, arguments, message):
    called = []
    variants = {"a": lambda: called.append(1)}
    with pytest.raises(InputError, match=message):
        interleaved(**{"variants": variants, "clock": clock, **arguments})
    assert not called


def test_few_rounds_must_be_allowed(clock):
    timings = interleaved({"a": clock.variant(30)}, rounds=3, allow_few_rounds=True, clock=clock)
    assert timings.rounds == 3


class Elsewhere:
    """A variant that keeps its own time, and may die at its n-th call."""

    def __init__(self, ns, dies_at=math.inf):
        self.ns, self.dies_at, self.calls = ns, dies_at, 0

    def __call__(self):
        self.elapsed_ns(1)

    def elapsed_ns(self, calls):
        self.calls += calls
        if self.calls >= self.dies_at:
            raise RuntimeError("died")
        return self.ns * calls


def test_a_variant_may_keep_its_own_time():
    timings = interleaved({"a": Elsewhere(30_000_000), "b": Elsewhere(60_000_000)})
    assert timings.ratio("a", "b").value == pytest.approx(0.5)


@pytest.mark.parametrize("dies_at", [1, 3, 12])
def test_a_lost_variant_drops_out_and_the_others_go_on(dies_at):
    lost = {}
    variants = {"a": Elsewhere(30_000_000), "b": Elsewhere(60_000_000, dies_at)}
    timings = interleaved(variants, lost=lost.__setitem__)
    assert timings.names == ["a"]
    assert timings.rounds == len(timings.order) == 10
    assert {name for turn in timings.order for name in turn} == {"a"}
    assert str(lost["b"]) == "died"
    assert variants["b"].calls == dies_at
