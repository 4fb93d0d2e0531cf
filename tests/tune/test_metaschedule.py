"""MetaSchedule over our loops: what it makes is right, kept, resumed and used."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import relaxquant as rq
from relaxquant.kernels.conv2d_metaschedule import from_trace
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.intrinsics.avx2 import AVX2
from relaxquant.kernels.registry import implement_conv2d
from relaxquant.kernels.tensor_intrin import dot_products, intrinsic
from relaxquant.kernels.tuned import read
from relaxquant.lower import ConvLayer
from relaxquant.tune import database as files
from relaxquant.tune import metaschedule
from relaxquant.tune.bench import Bench, WrongResult
from relaxquant.tune.database import TuningDatabase
from relaxquant.tune.device import LocalDevice
from relaxquant.tune.devices import Devices
from relaxquant.tune.metaschedule import Search, plain
from relaxquant.tune.registers import Limits, innermost, limits
from tests import waiting
from tests.kernels import reference
from tests.kernels.harness import RUNNABLE, build, conv_layer, run_implementation, target_of
from tests.networks import make

ROOT = Path(__file__).parents[2]

# For each, what a careless block, epilogue or packing would get wrong.
LAYERS = {
    "border, residual": dict(
        channels=32, out_channels=32, size=(6, 8), padding=(1, 1, 1, 1), zero_point=77,
        residual="uint8", residual_zero_point=131, out_zero_point=3,
    ),
    "channels in parts of blocks": dict(channels=17, out_channels=33, kernel=(1, 1), size=(2, 3)),
    "uneven border, strides": dict(
        channels=16, out_channels=16, size=(9, 7), padding=(0, 1, 2, 0), strides=(2, 1), batch=2,
        zero_point=128, rounding="UPWARD",
    ),
    "dilation, float output": dict(
        channels=16, out_channels=16, size=(7, 7), dilation=(2, 2), out_dtype="float32", clip=True,
    ),
    "dense": dict(channels=64, out_channels=10, kernel=(1, 1), size=(1, 1)),
    "fp32": dict(
        channels=32, out_channels=32, size=(4, 6), padding=(1, 1, 1, 1), dtype="float32",
        out_dtype="float32", residual="float32", clip=True,
    ),
}  # fmt: skip


def search(layer, folder, target_name: str = "native") -> Search:
    """A search of one layer on this machine."""
    target = target_of(target_name)
    isa = instruction_set(target)
    intrinsic(isa, dot_products(layer.spec, layer.weights, isa))
    given = ConvLayer("layer", "shape", layer.spec, layer.weights)
    return Search(given, "key", isa, target, 1, TuningDatabase(folder))


def run(found: Search, trials: int):
    return found.run(Devices([LocalDevice(1)], found.target), trials, lambda _: None)


@pytest.fixture(autouse=True)
def small_searches(monkeypatch):
    """Few schedules to choose proposals from: the search is TVM's, and not what is tested."""
    monkeypatch.setattr(metaschedule, "POPULATION", 8)
    monkeypatch.setattr(metaschedule, "GENERATIONS", 1)
    monkeypatch.setattr(metaschedule, "BATCH", 2)


@pytest.mark.parametrize("target", [name for name in ("avx2", "native") if name in RUNNABLE])
@pytest.mark.parametrize("name", LAYERS)
def test_what_is_proposed_computes_the_layer(name, target, tmp_path):
    layer = conv_layer(**LAYERS[name])
    check_proposals(layer, search(layer, tmp_path, target))


@pytest.mark.skipif("avx2" not in RUNNABLE, reason="there are no chains without AVX2")
@pytest.mark.parametrize(
    "spoiled, words", [(0, "4_x_vpmaddubsw_vpmaddwd"), (1, "4_x_vpmaddubsw_vpmaddwd.else.vpmaddwd")]
)
def test_sums_are_chained_in_int16_where_the_weights_prove_it(spoiled, words, tmp_path):
    """With the activations that saturate what the first weights would make of a chain."""
    sizes = dict(channels=32, out_channels=32, size=(6, 8), padding=(1, 1, 1, 1), zero_point=9)
    layer = conv_layer(**sizes, weight_max=16)
    layer.weights.weight[:spoiled, 4:6, 1, 1] = 127
    layer = replace(layer, data=np.full_like(layer.data, 255))
    searched = search(layer, tmp_path, "avx2")
    assert searched.intrinsic == f"relaxquant.avx2.{words}"
    check_proposals(layer, searched)


def test_register_tiles_that_are_tried_fit_the_registers(tmp_path):
    searched = search(conv_layer(channels=16, out_channels=64, size=(8, 16)), tmp_path)
    allowed = limits(searched.layer.spec, searched.dots, searched.isa)
    tiles = [
        innermost(candidate.sch.trace)
        for candidate in searched._context(4).generate_measure_candidates()
    ]
    assert tiles
    for image, block, row, column, vector in tiles:
        assert allowed.allow(block * vector, image * row * column)
    assert not allowed.allow(1, allowed.most)


@pytest.mark.parametrize(
    "out_channels, size, least", [(32, (1, 1), 3), (32, (11, 13), 3), (16, (1, 1), 2)]
)
def test_a_layer_without_a_large_tile_still_has_some(out_channels, size, least):
    """Tiles divide each axis: of 11 x 13 pixels none is between 1 and 11."""
    layer = conv_layer(out_channels=out_channels, size=size, kernel=(1, 1), weight_max=60)
    found = limits(layer.spec, dot_products(layer.spec, layer.weights, AVX2), AVX2)
    assert found == Limits(10, least)
    assert found.allow(out_channels // AVX2.lanes, 1)


def check_proposals(layer, searched: Search) -> None:
    """Two proposals against the NumPy model, for integers bit for bit."""
    proposed = searched._context(2).generate_measure_candidates()
    assert len(proposed) == 2
    for candidate in proposed:
        trace = json.dumps(plain(candidate.sch.trace.as_json()))
        made = from_trace(layer.spec, layer.weights, searched.isa, trace)
        found = run_implementation(build(made.build(), searched.target), made, layer)
        if layer.spec.precision == "fp32":
            np.testing.assert_allclose(found, float_model(layer), rtol=1e-5, atol=1e-4)
        else:
            arguments = layer.spec, layer.weights, layer.data, layer.residual
            np.testing.assert_array_equal(found, reference.conv2d_int8(*arguments))


def float_model(layer) -> np.ndarray:
    """The layer in NumPy's float64."""
    spec, weights = layer.spec, layer.weights
    data, weight = layer.data.astype(np.float64), weights.weight.astype(np.float64)
    value = reference.convolve(data, weight, spec.window, 1) + weights.bias[:, None, None]
    return np.clip(value + layer.residual * weights.residual_scale, weights.low, weights.high)


def test_proposals_for_a_board_have_its_dot_product(tmp_path):
    """A Raspberry Pi 5, which nothing runs on here: what it would be sent is looked at."""
    pi = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}
    target = rq.target.resolve(pi)
    isa = instruction_set(target)
    layer = conv_layer(channels=16, size=(4, 4), padding=(1, 1, 1, 1), zero_point=3)
    given = ConvLayer("layer", "shape", layer.spec, layer.weights)
    searched = Search(given, "key", isa, target, 4, TuningDatabase(tmp_path))
    (candidate,) = searched._context(1).generate_measure_candidates()
    assembly = build(candidate.sch.mod["main"], searched.target).inspect_source("asm")
    assert re.search(r"\b[su]dot\b", assembly)


def test_the_intrinsic_is_the_dot_product_that_the_weights_allow():
    """Only what cannot saturate, and by the same proof as in the kernels written by hand."""
    names = {}
    for weight_max in (60, 127):
        layer = conv_layer(weight_max=weight_max)
        names[weight_max] = intrinsic(AVX2, dot_products(layer.spec, layer.weights, AVX2))
    assert "vpmaddubsw" in names[60]
    assert "vpmaddubsw" not in names[127]
    assert "vpmaddwd" in names[127]


def test_a_trace_of_another_dot_product_is_not_replayed(tmp_path):
    """One that may saturate is not used for weights that make it."""
    small, large = (conv_layer(channels=16, weight_max=w, size=(4, 4)) for w in (60, 127))
    found = search(small, tmp_path, "avx2")
    trace = json.dumps(
        plain(found._context(1).generate_measure_candidates()[0].sch.trace.as_json())
    )
    assert from_trace(small.spec, small.weights, AVX2, trace) is not None
    assert from_trace(large.spec, large.weights, AVX2, trace) is None


@pytest.fixture(scope="module")
def quantized():
    """A small network in int8, and an input."""
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    calibration = [torch.randn(2, 3, 32, 32, generator=torch.manual_seed(1)).numpy()]
    return rq.quantize(module, rq.QConfig.best(), calibration=calibration), x.numpy()


def tune(module, path, **arguments):
    settings = {"threads": 1, "budget_s": 0.05, "trials": 2, "method": "metaschedule"}
    return rq.tune(module, path=path, **settings | arguments)


def test_a_network_is_searched_compiled_and_right(quantized, tmp_path, monkeypatch):
    module, x = quantized
    found = tune(module, tmp_path / "t.json")
    searched = [choice for choice in found.choices.values() if choice.trace]
    assert len(searched) == 4, "all but the first layer, whose image is not blocked"
    assert all(
        choice.trials == 2 and choice.trace_ms > 0
        for choice in found.choices.values()
        if choice.trace
    )
    assert read(tmp_path / "t.json") == found
    by_rule = rq.compile(module, threads=1)
    fastest = rq.compile(module, threads=1, tuned=found)
    assert fastest.kernels.tuned == 5
    forced = rq.compile(module, threads=1, schedule="metaschedule", tuned=tmp_path / "t.json")
    convolutions = [record for record in forced.kernels if record.macs]
    assert [record.schedule for record in convolutions].count("metaschedule") == 4
    assert forced.kernels.tuned == 4
    for library in (fastest, forced):
        np.testing.assert_array_equal(library(x), by_rule(x))
    monkeypatch.setattr(Search, "_search", lambda *_: pytest.fail("it was searched before"))
    assert tune(module, tmp_path / "t.json") == found


def test_the_database_serves_a_second_result(quantized, tmp_path, monkeypatch):
    """What a kill before the race leaves: records, but no choice."""
    module, _ = quantized
    first = tune(module, tmp_path / "t.json")
    (tmp_path / "t.json").unlink()
    monkeypatch.setattr(Search, "_search", lambda *_: pytest.fail("it was searched before"))
    second = tune(module, tmp_path / "t.json")
    assert {k: c.trace for k, c in second.choices.items()} == {
        k: c.trace for k, c in first.choices.items()
    }


def test_more_trials_go_on_from_there(tmp_path):
    layer = conv_layer(channels=16, size=(4, 4))
    assert run(search(layer, tmp_path), 2).tried == 2
    found = run(search(layer, tmp_path), 4)
    assert found.tried == 4
    lines = TuningDatabase(tmp_path).history("key")
    assert [line["trial"] for line in lines] == [1, 2, 3, 4]
    assert min(line["ms"] for line in lines) == pytest.approx(1e3 * found.seconds)
    elapsed = [line["elapsed_s"] for line in lines]
    assert elapsed == sorted(elapsed), "the seconds go on too"


def test_a_layer_of_a_few_schedules_has_all_of_them_tried(tmp_path, monkeypatch):
    """Of one pixel and one vector there are fewer than TVM's first population should have."""
    monkeypatch.setattr(metaschedule, "BATCH", 16)
    layer = conv_layer(size=(1, 1), kernel=(1, 1))
    found = run(search(layer, tmp_path), 16)
    assert 0 < found.tried < 16
    assert found.trace


KILLED = """
import sys
from pathlib import Path
from tests.kernels.harness import conv_layer
from tests.tune import test_metaschedule as t
t.metaschedule.BATCH = 4
t.run(t.search(conv_layer(out_channels=32, size=(10, 10)), Path(sys.argv[1])), 1000)
"""


def test_a_search_that_is_killed_goes_on_with_what_it_measured(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    trials = tmp_path / files.TRIALS
    waiting.until(
        lambda: trials.exists() and trials.read_text().count("\n") >= 3, "three trials", process
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    layer = conv_layer(out_channels=32, size=(10, 10))
    resumed = search(layer, tmp_path)
    known = resumed.tried
    assert known >= 3
    best = resumed.best
    found = run(resumed, known + 1)
    assert found.tried == known + 1
    assert found.seconds <= best < files.FAILED_S


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    layer = conv_layer(channels=16, size=(4, 4))
    run(search(layer, tmp_path), 2)
    path = tmp_path / files.RECORDS
    path.write_text(path.read_text()[:-40])
    with pytest.warns(UserWarning, match="the last line was cut off"):
        assert search(layer, tmp_path).tried == 1
    path.write_text(path.read_text()[:-1])
    assert run(search(layer, tmp_path), 2).tried == 2
    assert search(layer, tmp_path).tried == 2, "the next record begins a new line"


@pytest.mark.parametrize("text", ["no json\n", "\xff", '{"a": 1}\n', "[0, []]\n"])
def test_a_corrupt_database_is_one_error(tmp_path, text):
    (tmp_path / files.WORKLOADS).write_text("")
    (tmp_path / files.RECORDS).write_bytes(text.encode("latin1"))
    with pytest.raises(rq.InputError, match=r"holds no tuning database .*: delete it"):
        TuningDatabase(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(rq.InputError, match="cannot be made"):
        TuningDatabase(tmp_path / "file")


def test_a_kernel_that_computes_something_else_is_not_timed(tmp_path):
    layer = conv_layer(channels=16, size=(4, 4), seed=1)
    other = replace(layer.weights, bias=layer.weights.bias + 5000)
    target = target_of("native")
    isa = instruction_set(target)
    bench = Bench(LocalDevice(1), layer.spec, layer.weights, isa, target)
    wrong = implement_conv2d(layer.spec, other, isa)
    with pytest.raises(WrongResult):
        bench.checked_seconds(wrong.build(), wrong.arguments, 1.0)
    right = implement_conv2d(layer.spec, layer.weights, isa)
    assert bench.checked_seconds(right.build(), right.arguments, 1.0)


def test_a_schedule_that_fails_is_kept_as_failed(tmp_path, monkeypatch):
    def broken(*_):
        raise WrongResult("on purpose")

    monkeypatch.setattr(Bench, "checked_seconds", broken)
    layer = conv_layer(channels=16, size=(4, 4))
    found = run(search(layer, tmp_path), 2)
    assert (found.trace, found.tried) == ("", 2)
    assert [line["ms"] for line in TuningDatabase(tmp_path).history("key")] == [None, None]
    assert search(layer, tmp_path).tried == 2


def test_bad_arguments_are_one_error_each(quantized, tmp_path):
    module, _ = quantized
    for arguments, message in (
        ({"method": "metaschedul"}, "method must be .*did you mean 'metaschedule'"),
        ({"runner": "ssh"}, "runner must be 'local' or 'rpc', not 'ssh'"),
        ({"trials": 0}, "trials must be a whole number of at least 1, got 0"),
        ({"trials": 2.5}, "got 2.5"),
    ):
        with pytest.raises(rq.InputError, match=message):
            tune(module, tmp_path / "t.json", **arguments)
    with pytest.raises(rq.InputError, match="pass tuned="):
        rq.compile(module, threads=1, schedule="metaschedule")


def test_a_result_that_knows_no_layer_of_the_network_is_one_error(quantized, tmp_path):
    module, _ = quantized
    found = tune(module, tmp_path / "t.json", method="candidates")
    with pytest.raises(rq.InputError, match="none of the 5 of this network"):
        rq.compile(module, threads=1, tuned=replace(found, choices={}))
    with pytest.raises(rq.InputError, match="none of the 5 of this network"):
        rq.compile(module, threads=1, schedule="metaschedule", tuned=found)
