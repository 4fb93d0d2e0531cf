"""QConfig: what is accepted, and what the refusals say."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

from relaxquant.errors import RelaxQuantError
from relaxquant.quantize import QConfig, QuantizeError


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("nbit_input", 4, "8"),
        ("nbit_weight", 16, "8"),
        ("nbit_weight", 8.0, "8"),
        ("calibrate_mode", "kl", "'min_max', 'global_scale', 'percentile'"),
        ("global_scale", 0.0, "a finite number above 0"),
        ("global_scale", float("inf"), "a finite number above 0"),
        ("global_scale", "8", "a finite number above 0"),
        ("percentile", 0, "a number above 0 and at most 100"),
        ("percentile", 100.1, "a number above 0 and at most 100"),
        ("percentile", float("nan"), "a number above 0 and at most 100"),
        ("weight_granularity", "channel", "'per_channel', 'per_tensor'"),
        ("skip_conv_layers", 3, "a sequence of integers from 0 up"),
        ("skip_conv_layers", (0, -1), "a sequence of integers from 0 up"),
        ("skip_conv_layers", (True,), "a sequence of integers from 0 up"),
        ("skip_dense_layer", 1, "False, True"),
        ("reduce_range", "yes", "False, True"),
    ],
)
def test_a_bad_value_names_field_and_what_is_allowed(field, value, allowed):
    with pytest.raises(QuantizeError) as error:
        QConfig(**{field: value})
    assert f"QConfig.{field} is {value!r}; allowed: {allowed}" in str(error.value)


def test_an_unknown_field_gets_the_near_name():
    with pytest.raises(
        TypeError, match="no field 'calibration_mode'; did you mean 'calibrate_mode'"
    ):
        QConfig(calibration_mode="min_max")
    with pytest.raises(TypeError, match="no field 'xyz'; fields: nbit_input, nbit_weight"):
        dataclasses.replace(QConfig(), xyz=1)


def test_configs_are_values():
    config = QConfig(skip_conv_layers=[np.int64(2), 0], percentile=99)
    assert config.skip_conv_layers == (2, 0)
    assert config == pickle.loads(pickle.dumps(config)) == copy.deepcopy(config)
    assert {config: 1}[QConfig(skip_conv_layers=(2, 0), percentile=99)] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.percentile = 50


def test_weight_range():
    # 255 * 64 * 2 fits the int16 in which vpmaddubsw adds two products; 255 * 65 * 2 would not.
    reduced, full = QConfig().weight_qmax, QConfig(reduce_range=False).weight_qmax
    assert 255 * reduced * 2 <= np.iinfo(np.int16).max < 255 * (reduced + 1) * 2
    assert full == np.iinfo(np.int8).max


def test_errors_are_the_librarys_and_value_errors():
    assert issubclass(QuantizeError, RelaxQuantError) and issubclass(QuantizeError, ValueError)
