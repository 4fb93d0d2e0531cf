"""The TFLite notebook's steps, on a small network of ImageNet's classes against LiteRT itself."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from PIL import Image

import helpers
from tests.frontends.tflite_models import RELU6, Network
from tests.workbook.subjects import recording_run
from workbook import litert, tflite_accuracy, tflite_latency, tflite_plots, tflite_subject
from workbook.errors import WorkbookError
from workbook.tflite_subject import EXACT, FLOAT, INT8, LITERT, REFERENCE

PICTURES, EDGE, CLASSES = 6, 16, 1001
SETTINGS = {"target": "native", "threads": 1}


def small_model(path):
    """Depthwise and pointwise layers whose weights have zero points; classes as ImageNet's."""
    network = Network()
    x = network.input((1, EDGE, EDGE, 3), "uint8", 1 / 128, 128)
    y = network.conv2d(x, 16, 3, weights=("uint8", 140, False), activation=RELU6)
    y = network.conv2d(y, 16, 3, depthwise=True, weights=("uint8", 120, False))
    y = network.pool("AVERAGE", y, EDGE)
    return network.save(path, [network.conv2d(y, CLASSES, 1, weights=("uint8", 130, False))])


def picture_folder(folder):
    """A few labelled pictures of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with open(folder / "images.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        for i in range(2 * PICTURES):
            pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            writer.writerow([f"{i}.png", i])
    return folder


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tflite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAXQUANT_IMAGES", str(picture_folder(folder / "pictures")))
        model = small_model(folder / "small.lite")  # a package calls it so; no suffix tells
        (found,) = tflite_subject.subjects([model], PICTURES, 0, SETTINGS)
    return found


def test_answers_are_of_classes_without_the_background(subject):
    answers = subject.answers(INT8)
    assert answers.shape == (PICTURES, CLASSES - 1) and answers.dtype == np.uint8
    assert subject.answers(INT8, 2).shape == (2, CLASSES - 1)
    assert len(np.unique(answers)) > 10


def test_tflites_rounding_gives_the_reference_kernels_integers(subject):
    np.testing.assert_array_equal(subject.answers(EXACT), subject.answers(REFERENCE))


def test_all_multiplies_are_of_integers(subject):
    run, rows = recording_run()
    line = tflite_subject.described(run, subject)
    assert line["in integers (%)"] == 100 and line["in float"] == 0
    assert [(row["metric"], row["value"]) for row in rows] == [("integer_macs", 100)]


def test_tensors_are_counted_under_both_roundings(subject):
    run, rows = recording_run()
    exact, ours = tflite_accuracy.tensors(run, subject, 2, SETTINGS)
    assert (exact["equal integers (%)"], exact["first that differs"]) == (100, "none")
    assert ours["equal integers (%)"] < 100 and ours["largest difference (steps)"] >= 1
    assert [row["n"] for row in rows] == [2, 2]


def test_labels_and_accuracy_are_recorded_for_every_way(subject):
    run, rows = recording_run()
    line = tflite_accuracy.labels(run, subject, 3)
    assert line["tflite rounding = reference (%)"] == 100
    assert (line["n, reference"], line["n, XNNPACK"]) == (3, PICTURES)
    line = tflite_accuracy.accuracy(run, subject)
    assert line["n"] == PICTURES
    kept = {(row["metric"], row["precision"]) for row in rows}
    for columns in tflite_subject.RUN_AS.values():
        assert ("top1", columns["precision"]) in kept
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows)


def test_images_without_labels_give_no_accuracy(subject):
    images = type(subject.images)(subject.images.x, None, subject.images.names, "noise", None)
    bare = tflite_subject.Subject(subject.model, subject.module, subject.libraries, images)
    run, rows = recording_run()
    line = tflite_accuracy.accuracy(run, bare)
    assert line["images"] == f"{PICTURES}, noise: no labels" and not rows


@pytest.mark.slow
def test_every_way_is_timed_in_its_own_process_and_checked(subject, monkeypatch):
    monkeypatch.setattr(tflite_latency, "MIN_SAMPLE_S", 0.001)
    monkeypatch.setattr(tflite_latency, "PAUSE_S", 0.0)
    timings = tflite_latency.timed(subject, 1, 10, 0)
    assert set(timings.samples) == {*tflite_subject.OURS, LITERT, tflite_latency.CONTROL}
    run, rows = recording_run()
    line = tflite_latency.keep(run, subject, timings)
    assert {row["metric"] for row in rows} == {"latency", "time_ratio"}
    assert line["our int8 (ms)"] > 0
    shown = tflite_latency.shown([line])[0]
    assert "our int8 / LiteRT" in shown and "symmetric / our int8" not in shown
    lines = tflite_accuracy.symmetric(run, subject, line)
    assert [each["layers that lose zero points of weights"] for each in lines] == [2, 2]
    pyplot.close(tflite_plots.relative_times({"small": timings}))


@pytest.mark.slow
def test_another_output_in_a_process_is_refused(subject):
    other = tflite_subject.Subject(subject.model, subject.module, subject.libraries, subject.images)
    other._answers[FLOAT, 1] = subject.answers(FLOAT, 1) + 1
    with pytest.raises(WorkbookError, match="our fp32: its process gives another output"):
        tflite_latency.timed(other, 1, 10, 0)


def test_depthwise_layers_are_told_from_others(subject):
    line = tflite_latency.depthwise(subject, 2)
    shapes = [r.shape for r in subject.libraries[INT8].kernels if tflite_latency.is_depthwise(r)]
    assert shapes == ["16x16x16 -> 16x16x16, 3x3, groups 16"]
    assert line["depthwise, int8 (ms)"] > 0 and line["depthwise, fp32 (ms)"] > 0


def test_the_studys_models_are_found_by_their_file_names():
    lines = [{"model": "mobilenet_v2_1.0_224_quant", "our int8: top-1 / top-5 (%)": "1.0 / 2.0"}]
    study = helpers.published("quantization_story_accuracy")
    table = tflite_accuracy.beside_published(study, lines).set_index("model")
    assert table.loc["mobilenet_v2", "ours here, other images (%)"] == "1.0 / 2.0"
    assert table.loc["inception_v3", "through TVM then (%)"] == "77.3 / 93.6"
    ours = pd.DataFrame([{"model": "inception_v3", "our int8 / our fp32": "0.50"}])
    story = helpers.published("quantization_story_latency")
    table = tflite_latency.published(ours, story).set_index("model")
    assert table.loc["inception_v3", "ours here, int8 / fp32"] == "0.50"
    assert table.loc["mobilenet_v1", "ours here, int8 / fp32"] == ""
    assert table.loc["mobilenet_v1", "quantized / float"] > 1  # slower in int8, as published


def test_without_litert_there_is_one_error(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(WorkbookError, match="pip install ai-edge-litert"):
        litert.LiteRT(tmp_path / "model.tflite")
