"""The comparison of the sums' types, and the cat's classes, on a tiny network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from PIL import Image

import relaxquant as rq
from relaxquant.measure import Timings
from tests.workbook.subjects import recording_run, small_subject
from workbook import activation_types, bit_plots, paths, store, top5


@pytest.fixture(autouse=True)
def picture(monkeypatch):
    image = Image.fromarray(np.zeros((40, 50, 3), np.uint8))
    monkeypatch.setattr(top5.zoo, "cat", lambda: image)
    return np.asarray(image)


@pytest.fixture(scope="module")
def subject():
    return small_subject()


def test_each_call_is_some_executions_on_an_image_not_just_seen():
    seen = []
    fresh = activation_types.FreshImages(seen.append, (1, 2), rounds=3, executions=4, seed=0)
    for _ in range(4):
        fresh()
    images = [np.array(x) for x in seen]
    assert len(images) == 16
    assert all((images[i] == images[0]).all() for i in range(4))
    distinct = np.unique(np.stack(images[:12]).reshape(12, -1), axis=0)
    assert len(distinct) == 3
    np.testing.assert_array_equal(images[12], images[0])


def test_times_are_an_executions():
    clocked = SimpleNamespace(metadata=SimpleNamespace(inputs=[("x", [1, 3], "float32")]))

    class Library(SimpleNamespace):
        def __call__(self, x):
            return x

    library = Library(metadata=clocked.metadata)
    found = activation_types.timed({"a": library}, rounds=10, executions=5, seed=0)
    assert found.inner == {"a": 5} and found.rounds == 10


def test_configs_differ_in_the_type_of_the_sums_alone():
    chosen = activation_types.configs(global_scale=4.0)
    assert list(chosen) == ["fp32", "int8", "int16", "int32"] and chosen["fp32"] is None
    assert chosen["int32"] == rq.QConfig.relay_default(global_scale=4.0)
    assert chosen["int8"] == rq.QConfig.relay_default(global_scale=4.0, dtype_activation="int8")


def test_the_comparison_has_the_published_times_beside(subject):
    run, rows = recording_run()
    chosen = activation_types.configs(["int8", "int32"])
    timings = Timings({name: np.full(10, s) for name, s in zip(chosen, (4, 1, 2), strict=True)})
    published = pd.read_csv(paths.published_dir() / "resnet50_study_latency.csv")
    lines = activation_types.compared(run, subject, chosen, published, timings)
    by_name = {line["sums"]: line for line in lines}
    assert by_name["int8"]["published (ms)"] == 388.0
    assert by_name["int8"]["ours (ms)"] == pytest.approx(1000)
    assert by_name["int8"]["ours, of int32"] == pytest.approx(0.5)
    assert by_name["fp32"]["top-1 (%)"] == 100
    assert by_name["fp32"]["the cat is"].endswith("%")
    for row in rows:
        store.check_row({"notebook": "n", "machine": "m", **row})


def test_narrow_sums_do_not_reach_what_wide_ones_do(subject):
    lines = {line["sums"]: line for line in activation_types.reach_lines(
        subject, activation_types.configs()
    )}  # fmt: skip
    assert list(lines) == ["int8", "int16", "int32"]
    narrow, middle, wide = (line["reach, median layer"] for line in lines.values())
    assert middle / narrow == pytest.approx(32767 / 127)
    assert wide / narrow == pytest.approx((2**31 - 1) / 127)
    # relay.quantize leaves the first convolution and the dense layer in float.
    assert lines["int8"]["of layers"] == 3


def test_distinct_outputs_are_counted(subject):
    counts = activation_types.distinct_outputs(subject, {"fp32": None})
    assert counts == {"fp32": len(subject.seen)}


def test_classes_of_the_cat_by_hand():
    logits = np.zeros((1, 10), np.float32)
    logits[0, [3, 7]] = 2, 1  # cat, horse
    subject = SimpleNamespace(
        net=SimpleNamespace(dataset="cifar10", preprocess=lambda pictures: np.zeros((1, 3, 2, 2))),
        library=lambda config: lambda x: logits,
    )
    (guess,) = top5.of_the_cat(subject, {"fp32": None}, count=3)
    assert guess.classes == ["cat", "horse", "airplane"]  # the first of those that are equal
    total = np.e**2 + np.e + 8
    assert guess.chances == pytest.approx([np.e**2 / total, np.e / total, 1 / total])
    assert guess.cats == [True, False, False]
    assert guess.words(1) == f"cat {100 * np.e**2 / total:.0f} %"
    (line,) = top5.lines([guess])
    assert (line["a cat"], line["cats among them"]) == ("yes", 1)


def test_the_cats_figure_has_a_panel_for_each_precision(subject, picture):
    guesses = top5.of_the_cat(subject, {"fp32": None, "w8a8": rq.QConfig.best()})
    figure = bit_plots.cat(picture, guesses)
    titles = [axes.get_title() + axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["", "fp32", "w8a8"]
    pyplot.close(figure)
