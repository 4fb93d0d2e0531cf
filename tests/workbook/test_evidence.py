"""One small network in all the ways to compile it: what is proved, recorded, and drawn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors, pyplot

import relaxquant as rq
from relaxquant import inspect, measure
from relaxquant.inspect.timed import NO_MACS
from tests.workbook.subjects import recording_run, small_subject
from workbook import evidence, figures, ir_counts, loop_text, proof_plots
from workbook.evidence import FP32, INT8, NAIVE, SKIPPED, STOCK_FP32

LOW = "w2a2"
COMMON = {"model": "residual", "weights": "random", "trained": False, "batch": 2}


@pytest.fixture(scope="module")
def variants():
    subject = small_subject()
    with pytest.MonkeyPatch.context() as patch:
        batches = SimpleNamespace(batches=lambda size: [subject.batches[0][:size]])
        patch.setattr(evidence.zoo, "calibration_images", lambda net, count, seed: batches)
        modules = evidence.quantized(subject.net, 2, LOW, 2, 0)
    settings = {"target": "x86-64-v3", "threads": 1}
    return evidence.compile_all(modules, LOW, COMMON, **settings)


@pytest.fixture(scope="module")
def proofs(variants):
    return {name: rq.proof(variant.library) for name, variant in variants.items()}


@pytest.fixture(scope="module")
def timed(variants, proofs):
    x = small_subject().net.example_input(2, 0).numpy()
    return {
        name: inspect.timed(proofs[name], variants[name].library.profile(x, repeats=1))
        for name in proofs
    }


def test_shares_of_integers_are_recorded(variants, proofs):
    run, rows = recording_run()
    evidence.keep(run, variants, proofs)
    found = {(row["precision"], row["executor"]): row["value"] for row in rows}
    assert found == {
        ("fp32", "naive"): 0, ("w8a8", "naive"): 0, ("fp32", "graph"): 0,
        ("w8a8", "graph"): 100, (LOW, "graph"): 100, ("w8a8, all skipped", "graph"): 0,
    }  # fmt: skip
    assert {row["metric"] for row in rows} == {"integer_macs"}


def test_network_lines_say_what_stayed_float_and_why(proofs):
    lines = {line["network"]: line for line in evidence.network_lines(proofs)}
    assert "float" not in lines[INT8]["multiplied in"]
    assert (lines[INT8]["not all in integers"], lines[INT8]["why"]) == (0, "")
    assert lines[NAIVE]["multiplied in"] == "float32 100.0 %"
    assert lines[NAIVE]["not all in integers"] == lines[NAIVE]["layers"]
    assert "no integer lowering" in lines[NAIVE]["why"]
    assert lines[SKIPPED]["why"]
    assert len({line["GMAC"] for line in lines.values()}) == 1


def test_shares_of_time(variants, timed):
    run, rows = recording_run()
    evidence.keep_timed(run, variants, timed)
    values = [row["value"] for row in rows]
    assert all(0 <= value <= 100 for value in values)
    by_name = dict(zip(timed, values, strict=True))
    assert by_name[INT8] > 0 == by_name[NAIVE] == by_name[STOCK_FP32] == by_name[SKIPPED]
    lines = pd.DataFrame(evidence.time_lines(timed)).groupby("network")
    assert lines["time (%)"].sum().to_list() == pytest.approx([100] * len(timed))
    assert lines["MACs (%)"].sum().to_list() == pytest.approx([100] * len(timed))


def test_distinct_layers_hold_all_multiplications(proofs, timed):
    lines = evidence.layer_lines(timed[INT8])
    assert sum(line["calls"] for line in lines) == len(proofs[INT8].rows)
    assert sum(line["MACs (%)"] for line in lines) == pytest.approx(100)


def test_the_layer_shown_is_the_same_in_all_networks(proofs):
    layers = evidence.same_layer(proofs, (NAIVE, FP32, INT8))
    assert len({row.macs for row in layers.values()}) == 1
    assert layers[FP32].record.shape == layers[INT8].record.shape
    assert all("winograd" not in row.record.schedule for row in layers.values())
    assert layers[FP32].hot_loop.classes["vfmadd"] > 0
    assert not layers[INT8].hot_loop.classes["vfmadd"]
    for name, row in layers.items():
        assert row.instructions in loop_text.sentence(name, row)
    assert "vfmadd" in loop_text.side_by_side({FP32: layers[FP32].hot_loop.text})


def test_multiplications_by_whether_they_are_summed_up(variants):
    found = {
        name: ir_counts.multiplications(variants[name].library) for name in (NAIVE, FP32, INT8)
    }
    floats = {name: ir_counts.summed_up(c, integer=False) for name, c in found.items()}
    integers = {name: ir_counts.summed_up(c, integer=True) for name, c in found.items()}
    assert floats[NAIVE] > 0 < floats[FP32]
    assert (floats[INT8], integers[NAIVE], integers[FP32]) == (0, 0, 0)
    assert integers[INT8] > 0
    lines = ir_counts.multiplication_lines(found)
    assert sum(line[INT8] for line in lines) == found[INT8].total()
    assert {line["its product is"] for line in lines} == {"summed up", "not summed up"}


def test_the_words_are_counted_beside_the_published_ones(variants):
    counts = {
        name: inspect.substrings.count(variants[name].library.source("ll"))
        for name in (STOCK_FP32, NAIVE)
    }
    run, rows = recording_run()
    ir_counts.keep(run, counts, variants)
    found = {(row["metric"], row["precision"]): row["value"] for row in rows}
    text = variants[NAIVE].library.source("ll")
    assert found["ir_count_int8", "w8a8"] == text.count("int8") > 0
    assert found["ir_count_int8", "fp32"] == 0
    assert found["ir_hits_in_strings", "w8a8"] > 50
    published = figures_of_the_study()
    line = next(
        line for line in ir_counts.beside_published(published, counts) if line["word"] == "int8"
    )
    assert (line["published, unquantized"], line["published, quantized"]) == (440, 971)
    assert line[NAIVE] == text.count("int8")
    figure = proof_plots.places(counts, inspect.substrings.PLACES)
    bars = [bar for group in figure.axes[0].containers for bar in group]
    assert sum(bar.get_width() for bar in bars) == pytest.approx(100 * len(counts))
    texts = {text.get_text().strip() for text in figure.axes[0].texts}
    assert texts == {f"{count.total():,} hits" for count in counts.values()}
    pyplot.close(figure)


def figures_of_the_study() -> pd.DataFrame:
    import helpers

    return helpers.published("resnet50_study_ir_counts")


def test_a_flame_has_a_segment_for_each_call(timed):
    figure = proof_plots.flame({INT8: timed[INT8], NAIVE: timed[NAIVE]})
    axes = figure.axes[0]
    segments = [bar for group in axes.containers for bar in group]
    assert len(segments) == len(timed[INT8].rows) + len(timed[NAIVE].rows)
    for place in (0, 1):
        row = [bar for bar in segments if round(bar.get_y() + bar.get_height() / 2) == place]
        assert sum(bar.get_width() for bar in row) == pytest.approx(100)
    blue = colors.to_rgba(figures.colour("fp32"))
    floats = [bar for bar in segments if bar.get_facecolor() == blue]
    assert len(floats) == sum(row.precision == "float32" for row in timed[NAIVE].rows)
    legend = {text.get_text() for text in axes.get_legend().get_texts()}
    assert legend == {row.precision for name in (INT8, NAIVE) for row in timed[name].rows}
    assert NO_MACS in legend
    pyplot.close(figure)


def test_each_type_has_a_colour_of_its_own():
    names = [*proof_plots.ROLES, "bits", NO_MACS]
    assert len({proof_plots.precision_colour(name) for name in names}) == len(names)


def test_the_cost_of_the_stamps_is_a_paired_ratio():
    samples = {"plain": [1.0] * 10, "stamped": [1.01] * 10}
    timings = measure.Timings({name: np.array(values) for name, values in samples.items()})
    run, rows = recording_run()
    ratio = evidence.keep_stamps(run, timings, COMMON)
    assert ratio.value == pytest.approx(1.01)
    assert rows[0]["metric"] == "stamp_cost"
    assert (rows[0]["value"], rows[0]["n"]) == (ratio.value, 10)
