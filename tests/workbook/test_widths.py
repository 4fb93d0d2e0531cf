"""Widths by name, and a network that is quantized once for each config."""

from __future__ import annotations

import numpy as np
import pytest

import relaxquant as rq
from tests.workbook.subjects import small_subject
from workbook import widths
from workbook.errors import WorkbookError
from workbook.widths import Width, parse


@pytest.mark.parametrize("name", ["w8a8", "w4a8", "w16a16", "wta2", "w1a1"])
def test_names_go_there_and_back(name):
    assert parse(name).name == name


def test_ternary_weights_have_two_bits():
    assert parse("wta8") == Width(2, 8, ternary=True)
    assert parse("wta8").config().ternary and not parse("w2a8").config().ternary


@pytest.mark.parametrize("name", ["8", "w8", "a8w8", "w4a8 ", "int4", "wa8"])
def test_what_is_no_width_is_refused(name):
    with pytest.raises(WorkbookError, match="is no width: write w4a8"):
        parse(name)


def test_bits_that_do_not_exist_are_refused_by_the_config():
    with pytest.raises(rq.RelaxQuantError, match=r"QConfig\.nbit_weight is 9"):
        parse("w9a8").config()


def test_a_config_has_the_bits_and_the_fields_asked_for():
    config = parse("w4a6").config(calibrate_mode="min_max")
    assert (config.nbit_weight, config.nbit_input, config.calibrate_mode) == (4, 6, "min_max")
    assert config.weight_granularity == rq.QConfig.best().weight_granularity


def test_the_same_width_twice_is_one():
    assert widths.parse_all(["w4a8", "w8a8", "w4a8"]) == [Width(4, 8), Width(8, 8)]


def test_a_subject_quantizes_each_config_once(monkeypatch):
    subject = small_subject()
    config = parse("w8a8").config()
    calls = []
    real = rq.quantize
    monkeypatch.setattr(rq, "quantize", lambda *a, **k: calls.append(a) or real(*a, **k))
    first, second = subject.logits(config), subject.logits(config)
    subject.library(config)
    assert first is second and len(calls) == 1
    np.testing.assert_array_equal(first, subject.logits(config, widths.PLAIN))
    assert first.shape == subject.logits().shape == (12, 10)
    assert np.abs(first - subject.logits()).max() > 0
    assert subject.quantized(None) is subject.module


def test_without_labels_fp32_is_the_judge():
    subject = small_subject(labelled=False)
    np.testing.assert_array_equal(subject.labels, subject.logits().argmax(1))
