"""Two runs side by side: the rule on made-up rows, then the command on folders."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from relaxquant.measure import bootstrap_median, wilson
from workbook import cli, compare, directions, state, store, verdicts
from workbook.noise import Noise, common_shift
from workbook.verdicts import IMPROVED, INCONCLUSIVE, NOT_COMPARABLE, REGRESSED, UNCHANGED

BOX, OTHER_BOX = "box, 2 cores", "other box, 8 cores"


def row(metric="latency", value=10.0, unit="ms", low=None, high=None, **columns):
    common = {"notebook": "03_toy", "model": "toy", "trained": True, "machine": BOX, "n": 10}
    bounds = {"ci_low": low, "ci_high": high}
    return store.check_row({**common, **columns, "metric": metric, "value": value, "unit": unit}
                           | bounds)  # fmt: skip


def near(value, half=0.01, **columns):
    return row(value=value, low=value * (1 - half), high=value * (1 + half), **columns)


def judged(before, after, busy=False):
    pairs, _, _ = compare.pair(before, after)
    return verdicts.judge(pairs, Noise(before, after, pairs, busy))


def verdict(before, after, *controls):
    return judged([before, *controls], [after, *controls])[0].verdict


@pytest.mark.parametrize(
    ("value", "half", "expected"),
    [
        (7.0, 0.01, IMPROVED), (13.0, 0.01, REGRESSED), (10.2, 0.01, UNCHANGED),
        (10.6, 0.02, INCONCLUSIVE), (13.0, 0.4, INCONCLUSIVE), (10.2, 0.2, INCONCLUSIVE),
    ],
)  # fmt: skip
def test_times_count_where_they_are_surely_beyond_the_band(value, half, expected):
    assert verdict(near(10.0, half), near(value, half)) == expected


def test_equal_rows_are_unchanged_even_without_interval():
    assert verdict(row(), row()) == UNCHANGED
    assert verdict(row(), row(value=20.0)) == INCONCLUSIVE


def test_control_widens_the_band_of_its_notebook():
    noisy = row("noise_floor", 40.0, "%", model=None, trained=None)
    calm_elsewhere = row("noise_floor", 1.0, "%", model=None, trained=None, notebook="09_peers")
    assert verdict(near(10.0), near(13.0), noisy, calm_elsewhere) == INCONCLUSIVE
    assert verdict(near(10.0), near(13.0), calm_elsewhere) == REGRESSED
    # A notebook without a control of its own gets what the run's others say.
    elsewhere = {**noisy, "notebook": "09_peers"}
    assert verdict(near(10.0), near(13.0), elsewhere) == INCONCLUSIVE


def test_directions():
    def of(metric, unit, after):
        value, low, high = after
        return verdict(row(metric, 2.0, unit, 1.98, 2.02), row(metric, value, unit, low, high))

    up, down = (4.0, 3.96, 4.04), (1.0, 0.99, 1.01)
    for metric, unit in (("speedup", "x"), ("throughput", "images/s")):
        assert (of(metric, unit, up), of(metric, unit, down)) == (IMPROVED, REGRESSED)
    for metric, unit in (("time_ratio", "x"), ("latency", "ms"), ("my own time", "us")):
        assert (of(metric, unit, up), of(metric, unit, down)) == (REGRESSED, IMPROVED)
    assert of("peak, multiply-add", "GMAC/s", up) == verdicts.DIFFERS


def test_every_direction_has_a_rule():
    metrics = [*directions.METRICS.values(), *directions.UNITS.values()]
    assert {metric.kind for metric in metrics} == {
        directions.TIME, directions.RATIO, directions.SHARE, directions.POINTS, directions.MEMORY,
        directions.BYTES,
    }  # fmt: skip
    assert all(metric.better in (directions.LOWER, directions.HIGHER) for metric in metrics)


def test_bytes_and_memory_have_their_own_floors():
    for metric, within, beyond in (("weights", 1.005, 1.02), ("peak_memory", 1.08, 1.2)):
        before = row(metric, 100.0, "MiB")
        assert verdict(before, row(metric, 100 * within, "MiB")) == UNCHANGED
        assert verdict(before, row(metric, 100 * beyond, "MiB")) == REGRESSED
        assert verdict(before, row(metric, 100 / beyond, "MiB")) == IMPROVED


def share(correct, n=2000, metric="top1"):
    found = wilson(correct, n)
    return row(metric, 100 * found.value, "%", 100 * found.low, 100 * found.high, n=n)


def test_shares_are_compared_by_their_intervals():
    assert verdict(share(1900), share(1900)) == UNCHANGED
    assert verdict(share(1900), share(1890)) == INCONCLUSIVE
    assert verdict(share(1900), share(1700)) == REGRESSED
    assert verdict(share(1900), share(1990)) == IMPROVED
    assert verdict(share(50, 50), share(49, 50)) == INCONCLUSIVE


def test_other_machine_compares_ratios_and_shares_only():
    times = verdict(near(10.0), near(5.0, machine=OTHER_BOX))
    ratios = verdict(
        row("speedup", 2.0, "x", 1.9, 2.1), row("speedup", 4.0, "x", 3.9, 4.1, machine=OTHER_BOX)
    )
    assert (times, ratios) == (NOT_COMPARABLE, IMPROVED)


def test_what_all_times_do_in_common_is_not_a_change_of_each():
    names = [f"m{i}" for i in range(8)]
    before = [near(10.0, model=name) for name in names]
    slower = [near(13.0, model=name) for name in names]
    assert {c.verdict for c in judged(before, slower)} == {INCONCLUSIVE}
    pairs, _, _ = compare.pair(before, slower)
    assert common_shift(pairs) == pytest.approx(math.log(1.3))
    # Half of them alone are no common movement, and stand out.
    half = [*slower[:4], *before[4:]]
    found = [c.verdict for c in judged(before, half)]
    assert found == [REGRESSED] * 4 + [UNCHANGED] * 4
    # One that moved much further than all others stands out, too.
    assert judged(before, [near(30.0, model="m0"), *slower[1:]])[0].verdict == REGRESSED


def test_a_busy_machine_allows_no_verdict_on_times():
    assert judged([near(10.0)], [near(30.0)], busy=True)[0].verdict == INCONCLUSIVE


def test_holm_against_worked_example():
    # Holm's own steps: 0.01 <= 0.05/4, 0.015 <= 0.05/3, 0.03 > 0.05/2.
    assert verdicts.holm([0.03, 0.01, 0.04, 0.015]) == [False, True, False, True]
    assert verdicts.holm([]) == []


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [(2.262, 9, 0.05), (4.781, 9, 0.001), (2.571, 5, 0.05), (1.96, math.inf, 0.05)],
)
def test_student_tail_against_tables(t, freedom, p):
    half = 1.959964
    assert verdicts.p_beyond(t + 1.0, half, 1.0, freedom) == pytest.approx(p, rel=0.05)


def timed(rng, true, rounds=10, between=0.015, within=0.02):
    """Rows of one run: medians of rounds, and what the machine does to each build between runs."""
    rows = []
    for index, seconds in enumerate(true):
        level = seconds * math.exp(rng.normal(0, between))
        samples = level * np.exp(rng.normal(0, within, rounds))
        low, high = bootstrap_median(samples, seed=index)
        rows.append(row(value=float(np.median(samples)), low=low, high=high, batch=index + 1))
    return rows


def test_two_runs_of_the_same_code_are_not_told_apart():
    rng = np.random.default_rng(7)
    true = rng.uniform(1, 50, 40)
    wrong = 0
    for _ in range(20):
        found = judged(timed(rng, true), timed(rng, true))
        wrong += any(c.verdict in (IMPROVED, REGRESSED) for c in found)
        assert sum(c.verdict == UNCHANGED for c in found) > 10
    # 5 % of the comparisons may err; more than three of twenty would be another rule.
    assert wrong <= 3


def test_without_correction_many_rows_would_err():
    """The same rows judged one by one, each at 95 % and without a band: half of them err."""
    rng = np.random.default_rng(7)
    true = rng.uniform(1, 50, 40)
    before, after = timed(rng, true), timed(rng, true)
    naive = sum(
        a["ci_low"] > b["ci_high"] or a["ci_high"] < b["ci_low"]
        for a, b in zip(before, after, strict=True)
    )
    assert naive >= 3
    assert not any(c.verdict in (IMPROVED, REGRESSED) for c in judged(before, after))


def test_real_changes_are_found_among_many_rows():
    rng = np.random.default_rng(3)
    true = rng.uniform(1, 50, 30)
    changed = true * np.where(np.arange(30) < 8, 1.3, 1.0)
    found = judged(timed(rng, true), timed(rng, changed))
    assert sum(c.verdict == REGRESSED for c in found[:8]) >= 7
    assert all(c.verdict in (UNCHANGED, INCONCLUSIVE) for c in found[8:])


def test_pairing_by_identity_repeats_in_order():
    before = [near(1.0, batch=1), near(2.0, batch=1), near(3.0, batch=8)]
    after = [near(4.0, batch=1), near(5.0, batch=1), near(6.0, batch=64)]
    pairs, gone, new = compare.pair(before, after)
    assert [(a["value"], b["value"]) for a, b in pairs] == [(1.0, 4.0), (2.0, 5.0)]
    assert ([r["value"] for r in gone], [r["value"] for r in new]) == ([3.0], [6.0])


def keep(folder, rows, load=0.1, machine=BOX, failed=()):
    """Write a run's folder as the runner leaves it, as far as a comparison reads it."""
    store.start(folder / "results.csv")
    for entry in rows:
        store.append(folder / "results.csv", entry)
    about = {
        "created": "2026-01-01T00:00:00+00:00", "load": {"before": [load], "after": [load]},
        "machine": {"name": machine, "cores": {"logical": 2}, "packages": {"numpy": "2.4.6"},
                    "git": {"revision": "a" * 40, "dirty": True}},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(about))
    current = state.State("2026-01-01T00:00:00+00:00", "quick", {})
    for name in ("03_toy", "04_toy"):
        status = state.FAILED if name in failed else state.OK
        current.notebooks[name] = state.Entry(status)
    current.save(folder)
    return str(folder)


def call(*words):
    return CliRunner().invoke(cli.main, ["compare", *words])


def test_command_prints_renders_and_fails_on_request(tmp_path):
    old = keep(tmp_path / "old", [near(10.0), share(1900), near(5.0, batch=8)])
    worse = [near(20.0, executor="<b>graph</b>"), near(20.0), share(1900), near(5.0, batch=64)]
    new = keep(tmp_path / "new", worse)
    page = tmp_path / "page.html"
    done = call(old, new, "--out", str(page))
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "2 lines in common: 1 regressed, 1 unchanged, 1 only in old, 2 only in new." in text
    assert "2.000×" in text
    html = page.read_text()
    assert "&lt;b&gt;graph" in html
    assert "<b>graph" not in html
    assert "http" not in html
    assert call(old, new, "--out", str(page), "--fail-on-regression").exit_code == 1
    assert call(old, old, "--out", str(page), "--fail-on-regression").exit_code == 0


def test_page_goes_to_outputs_by_the_names_of_the_runs(tmp_path):
    keep(tmp_path / "outputs" / "a", [near(10.0)])
    keep(tmp_path / "outputs" / "b", [near(10.0)])
    assert call("a", "b").exit_code == 0
    assert (tmp_path / "outputs" / "compare-a-b.html").is_file()


def test_notebook_that_no_longer_ends_well_is_a_regression(tmp_path):
    rows = [near(10.0)]
    old, new = keep(tmp_path / "old", rows), keep(tmp_path / "new", rows, failed=["04_toy"])
    done = call(old, new, "--fail-on-regression")
    assert done.exit_code == 1
    assert "No longer ends well: 04_toy." in done.output


def test_cautions_name_other_machines_busy_machines_and_common_movement(tmp_path):
    four = [near(10.0, batch=b) for b in (1, 2, 3, 4)]
    eight = [near(12.0, batch=b) for b in (1, 2, 3, 4)]
    moved = [dict(r, machine=OTHER_BOX) for r in four]
    old = keep(tmp_path / "old", four)
    busy = keep(tmp_path / "busy", eight, load=5.0)
    text = " ".join(call(old, busy, "--fail-on-regression").output.split())
    assert "busy ran on a busy machine (load 5.0 and 5.0 before and after)" in text
    assert "three quarters of all times are slower by 20.0 % or more" in text
    text = " ".join(call(old, keep(tmp_path / "moved", moved)).output.split())
    assert "Other machines (box, 2 cores against other box, 8 cores)" in text


@pytest.mark.parametrize(
    ("second", "message"),
    [("nowhere", "no run 'nowhere'"), ("other", "have no measurement in common")],
)
def test_what_cannot_be_compared_is_one_line_and_code_2(tmp_path, second, message):
    old = keep(tmp_path / "outputs" / "old", [near(10.0)])
    keep(tmp_path / "outputs" / "other", [near(10.0, model="another")])
    done = call(old, second)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output
