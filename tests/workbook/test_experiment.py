"""Steps that notebooks share, where what they need is not there."""

from __future__ import annotations

from dataclasses import replace

from tests.workbook.subjects import small_subject
from workbook import context, experiment, notes
from workbook.context import notes_file


def test_without_labels_there_is_a_sentence_and_no_accuracy(tmp_path, monkeypatch):
    subject = small_subject("residual")
    seen = replace(subject.seen, labels=None)
    monkeypatch.setattr(experiment.zoo, "load_model", lambda name: subject.net)
    monkeypatch.setattr(experiment.zoo, "evaluation_images", lambda *_: seen)
    monkeypatch.setattr(experiment, "quantized_pair", lambda *_: None)
    run = context.Run("03_toy", tmp_path, {"threads": None})
    found = experiment.accuracy(run, "residual", 4, 4, 0, {})
    run.headline(found.sentence, metrics=found.metrics, where={"model": found.model})
    (said,) = notes.read(notes_file(tmp_path, "03_toy"))["headlines"]
    assert said["text"] == "residual: no labelled images here, so no accuracy."
    assert run.rows() == []


def test_with_labels_the_sentence_has_rows_behind_it(tmp_path, monkeypatch):
    subject = small_subject("residual")
    answers = subject.logits()
    monkeypatch.setattr(experiment.zoo, "load_model", lambda name: subject.net)
    monkeypatch.setattr(experiment.zoo, "evaluation_images", lambda *_: subject.seen)
    monkeypatch.setattr(experiment, "quantized_pair", lambda *_: experiment.Pair(None, None, ""))
    monkeypatch.setattr(experiment, "_logits", lambda *_: answers)
    run = context.Run("03_toy", tmp_path, {"threads": None})
    found = experiment.accuracy(run, "residual", 4, 4, 0, {})
    for metric in found.metrics:
        assert {row["value"] for row in run.rows(metric=metric)} == {100.0}
