"""QConfig: what is accepted, and what the refusals say."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from relaxquant.errors import RelaxQuantError
from relaxquant.quantize import QConfig, QuantizeError, qconfig


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("nbit_input", 9, "1, 2, 3, 4, 5, 6, 7, 8, 16"),
        ("nbit_input", 0, "1, 2, 3, 4, 5, 6, 7, 8, 16"),
        ("nbit_weight", 9, "1, 2, 3, 4, 5, 6, 7, 8, 16"),
        ("nbit_weight", 8.0, "1, 2, 3, 4, 5, 6, 7, 8, 16"),
        ("nbit_weight", True, "1, 2, 3, 4, 5, 6, 7, 8, 16"),
        ("nbit_activation", 24, "8, 16, 32"),
        ("nbit_ends", 9, "None, 1, 2, 3, 4, 5, 6, 7, 8, 16"),
        ("dtype_input", "int4", "'auto', 'int8', 'uint8', 'int16'; bits are set by nbit_input"),
        ("dtype_weight", "bool", "'auto', 'int8', 'int16'; bits: nbit_weight"),
        ("dtype_activation", "float32", "'int8', 'int16', 'int32'"),
        ("calibrate_mode", "kl", "'global_scale', 'min_max', 'percentile', 'kl_divergence', 'mse'"),
        ("global_scale", 0.0, "a finite number above 0"),
        ("global_scale", float("inf"), "a finite number above 0"),
        ("global_scale", "8", "a finite number above 0"),
        ("weight_scale", "min", "'power2', 'max', 'mse'"),
        ("skip_conv_layers", 3, "a sequence of integers from 0 up"),
        ("skip_conv_layers", (0, -1), "a sequence of integers from 0 up"),
        ("skip_conv_layers", (True,), "a sequence of integers from 0 up"),
        ("skip_dense_layer", 1, "False, True"),
        ("do_simulation", "no", "False, True"),
        ("round_for_shift", 1, "False, True"),
        ("debug_enabled_ops", "nn.conv2d", "None, or a sequence of operator names"),
        ("debug_enabled_ops", [1], "None, or a sequence of operator names"),
        ("rounding", "DOWNWARD", "'UPWARD', 'TONEAREST', 'TOEVEN'"),
        ("calibrate_chunk_by", 0, "-1, or an integer from 1 up"),
        ("calibrate_chunk_by", 1.5, "-1, or an integer from 1 up"),
        ("partition_conversions", True, "'disabled', 'enabled', 'fully_integral'"),
        ("percentile", 0, "a number above 0 and at most 100"),
        ("percentile", 100.1, "a number above 0 and at most 100"),
        ("percentile", float("nan"), "a number above 0 and at most 100"),
        ("weight_granularity", "channel", "'per_channel', 'per_tensor'"),
        ("weight_rounding", "up", "'nearest', 'compensated'"),
        ("ternary", None, "False, True"),
        ("reduce_range", "yes", "'auto', False, True"),
        ("asymmetric", 1, "False, True"),
        ("bias_correction", 1, "False, True"),
        ("cross_layer_equalization", 1, "False, True"),
    ],
)
def test_a_bad_value_names_field_and_what_is_allowed(field, value, allowed):
    with pytest.raises(QuantizeError) as error:
        QConfig(**{field: value})
    assert f"QConfig.{field} is {value!r}; allowed: {allowed}" in str(error.value)


@pytest.mark.parametrize("what", ["input", "weight"])
def test_a_type_too_small_for_its_bits_is_refused(what):
    with pytest.raises(QuantizeError, match=f"nbit_{what} is 16, but dtype_{what} is 'int8'"):
        QConfig(**{f"nbit_{what}": 16})
    fields = {f"nbit_{what}": 16, f"dtype_{what}": "auto"}
    assert QConfig(**fields) == QConfig.relay_default(**fields)


def test_defaults_are_those_of_relay_quantize():
    relay = {
        "nbit_input": 8,
        "nbit_weight": 8,
        "nbit_activation": 32,
        "dtype_input": "int8",
        "dtype_weight": "int8",
        "dtype_activation": "int32",
        "calibrate_mode": "global_scale",
        "global_scale": 8.0,
        "weight_scale": "power2",
        "skip_dense_layer": True,
        "skip_conv_layers": (0,),
        "do_simulation": False,
        "round_for_shift": True,
        "debug_enabled_ops": None,
        "rounding": "UPWARD",
        "calibrate_chunk_by": -1,
        "partition_conversions": "disabled",
    }
    for config in (QConfig(), QConfig.relay_default()):
        assert {name: getattr(config, name) for name in relay} == relay


def test_none_skips_no_convolution():
    assert QConfig(skip_conv_layers=None).skip_conv_layers == ()


def test_presets_take_changes():
    best = QConfig.best(nbit_input=4)
    assert dataclasses.replace(best, nbit_input=8, nbit_ends=None) == QConfig.best()
    few = QConfig.best(nbit_weight=4)
    assert (few.weight_scale, few.weight_rounding, few.nbit_ends) == ("mse", "compensated", 8)
    assert QConfig.best(nbit_weight=4, weight_rounding="nearest").weight_rounding == "nearest"
    assert not QConfig.best(calibrate_mode="global_scale").bias_correction
    with pytest.raises(TypeError, match="did you mean 'nbit_weight'"):
        QConfig.best(nbits_weight=4)


def test_a_with_statement_sets_the_current_config():
    assert QConfig.current() is None
    with qconfig(nbit_weight=4) as outer:
        assert QConfig.current() is outer and outer.nbit_weight == 4
        with QConfig.best() as inner:
            assert QConfig.current() is inner
        assert QConfig.current() is outer
        with pytest.raises(QuantizeError), qconfig(nbit_weight=9):
            pass
        assert QConfig.current() is outer
    assert QConfig.current() is None


def test_another_thread_has_a_current_config_of_its_own():
    with qconfig(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(QConfig.current).result() is None


@pytest.mark.parametrize(
    ("target", "saturates"),
    [("x86-64-v3", True), ({"kind": "llvm", "mcpu": "znver4"}, False), ("generic", False)],
)
def test_the_target_decides_the_range_of_weights(target, saturates):
    assert QConfig().for_target(target).reduce_range is saturates
    for chosen in (False, True):
        assert QConfig(reduce_range=chosen).for_target(target).reduce_range is chosen


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
    reduced, full = (QConfig(reduce_range=flag).weight_qmax for flag in (True, False))
    assert 255 * reduced * 2 <= np.iinfo(np.int16).max < 255 * (reduced + 1) * 2
    assert full == np.iinfo(np.int8).max
    assert [QConfig(nbit_weight=n).weight_qmax for n in range(1, 8)] == [1, 1, 3, 7, 15, 31, 63]


def test_errors_are_the_librarys_and_value_errors():
    assert issubclass(QuantizeError, RelaxQuantError) and issubclass(QuantizeError, ValueError)
