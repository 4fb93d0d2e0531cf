"""The race between kernels, driven by a clock that only builds and runs move."""

from __future__ import annotations

import pytest

from relaxquant.tune.race import FINALISTS, LOOKS, MAX_ROUNDS, MIN_ROUNDS, race


class Track:
    """Candidates with a time to build and a time to run, in seconds; logs both."""

    def __init__(self):
        self.now = 0.0
        self.built: list[str] = []
        self.ran: dict[str, int] = {}

    def clock(self) -> float:
        return self.now

    def candidate(self, name: str, *durations: float, build: float = 0.01):
        """The durations are those of successive runs; the last holds for ever after."""
        left = list(durations)

        def run():
            self.now += left.pop(0) if len(left) > 1 else left[0]
            self.ran[name] = self.ran.get(name, 0) + 1

        def make():
            self.now += build
            self.built.append(name)
            return run

        return name, make

    def race(self, *candidates, budget_s: float = 2.0):
        return race(candidates, budget_s, clock=self.clock)


@pytest.fixture
def track():
    return Track()


def test_the_fastest_wins(track):
    result = track.race(
        track.candidate("rule", 0.0010),
        track.candidate("slow", 0.0012),
        track.candidate("fast", 0.0008),
    )
    assert result.winner == "fast"
    assert result.ratio.value == pytest.approx(0.8)
    assert result.ratio.high < 1
    assert result.ratio.n >= MIN_ROUNDS
    assert list(result.looked_at) == ["rule", "slow", "fast"]
    assert result.looked_at["slow"] == pytest.approx(0.0012)


def test_the_rules_choice_stays_where_it_is_the_fastest(track):
    result = track.race(track.candidate("rule", 0.001), track.candidate("other", 0.0011))
    assert (result.winner, result.ratio) == ("rule", None)


def test_one_that_was_lucky_in_the_rounds_does_not_replace_the_rules_choice(track):
    """Faster while it is chosen, slower from then on: the fresh rounds tell."""
    lucky = [0.0009] * (1 + LOOKS + MAX_ROUNDS) + [0.0011]
    result = track.race(track.candidate("rule", 0.001), track.candidate("lucky", *lucky))
    assert result.winner == "rule"
    assert result.ratio.verdict == "slower"


def test_a_doubtful_one_does_not_replace_the_rules_choice(track):
    """Faster by the median in the rounds, now faster and now slower in the fresh ones."""
    swaying = [0.0009] * (1 + LOOKS + MAX_ROUNDS) + [0.0009, 0.0011] * MAX_ROUNDS
    result = track.race(track.candidate("rule", 0.001), track.candidate("swaying", *swaying))
    assert result.winner == "rule"
    assert result.ratio.verdict == "inconclusive"


def test_slow_ones_get_a_look_and_no_rounds(track):
    track.race(
        track.candidate("rule", 0.001),
        track.candidate("slow", 0.002),
        track.candidate("close", 0.00125),
    )
    assert track.ran["slow"] == 1 + LOOKS
    assert track.ran["close"] >= 1 + LOOKS + MIN_ROUNDS


def test_one_that_was_close_only_to_a_slow_best_is_dropped_too(track):
    track.race(
        track.candidate("rule", 0.0010),
        track.candidate("early", 0.0012),
        track.candidate("best", 0.0005),
    )
    assert track.ran["early"] == 1 + LOOKS
    assert track.ran["rule"] > track.ran["early"], "the one to beat stays"


def test_building_stops_with_its_share_of_the_budget(track):
    many = [track.candidate(f"c{i}", 0.001, build=0.5) for i in range(20)]
    track.race(*many, budget_s=2.0)
    assert track.built == ["c0", "c1", "c2"]


def test_the_first_two_are_built_whatever_it_takes(track):
    many = [track.candidate(f"c{i}", 0.001, build=5) for i in range(3)]
    track.race(*many, budget_s=1.0)
    assert track.built == ["c0", "c1"]


def test_rounds_go_to_a_few(track):
    track.race(*[track.candidate(f"c{i:02}", 0.001 + i * 1e-6) for i in range(20)])
    assert sum(count > 1 + LOOKS for count in track.ran.values()) == FINALISTS


def test_of_slow_layers_fewer_get_rounds(track):
    result = track.race(
        track.candidate("rule", 0.10),
        *[track.candidate(f"c{i}", 0.09 + i * 1e-3) for i in range(5)],
        budget_s=3.0,
    )
    assert result.winner == "c0"
    assert sum(count > 1 + LOOKS for count in track.ran.values()) == 2


def test_the_budget_holds(track):
    track.race(*[track.candidate(f"c{i}", 0.001 + i * 1e-5) for i in range(30)], budget_s=2.0)
    assert track.now < 2.0 + 0.02


def test_one_that_does_not_apply_after_all_is_passed_over(track):
    result = track.race(
        track.candidate("rule", 0.001), ("absent", lambda: None), track.candidate("fast", 0.0005)
    )
    assert result.winner == "fast"
    assert "absent" not in result.looked_at


def test_a_run_that_says_how_long_it_took_is_believed(track):
    """Runs on another machine do: the clock here counts the way there and back as well."""
    told = {"rule": 0.001, "fast": 0.0005}
    candidates = []
    for name, seconds in told.items():
        _, make = track.candidate(name, 0.002)
        run = make()
        candidates.append((name, lambda run=run, s=seconds: lambda: (run(), s)[1]))
    assert track.race(*candidates).ratio.value == pytest.approx(0.5)


def test_a_race_of_one(track):
    result = track.race(track.candidate("only", 0.001))
    assert (result.winner, result.ratio) == ("only", None)
    assert track.ran["only"] == 1 + LOOKS
