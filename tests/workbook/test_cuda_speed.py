"""Timing of variants on a GPU, with this CPU in its place: what is checked, timed and kept."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tvm

import relaxquant as rq
from relaxquant import measure, zoo
from tests.networks import make
from tests.workbook.subjects import recording_run
from workbook import cuda_speed, cuda_variants
from workbook.cuda_variants import FP16, FP32, MMA, NAIVE, OTHERS, STOCK_FP32
from workbook.errors import WorkbookError

COMMON = {"model": "residual", "trained": False, "batch": 2}


class OnCpu:
    """A CPU's library with the interface of one on a GPU."""

    def __init__(self, library, change=lambda y: y):
        self.library, self.change = library, change

    def __call__(self, x):
        return self.change(self.library(x))

    def runner(self, x):
        return lambda: tvm.runtime.tensor(self(x))


@pytest.fixture(scope="module")
def subject():
    network, x = make("residual")
    fp32 = rq.frontends.from_torch(network, x)
    int8 = rq.quantize(fp32, rq.QConfig.best(calibrate_mode="global_scale"))
    libraries = [rq.compile(module, threads=1) for module in (fp32, int8)]
    return x.numpy(), libraries, network


def libraries_of(subject, change=lambda y: y):
    _, (fp32, int8), _ = subject
    return {
        STOCK_FP32: OnCpu(fp32),
        NAIVE: OnCpu(int8),
        FP32: OnCpu(fp32),
        FP16: OnCpu(fp32),
        MMA: OnCpu(int8, change),
    }


def test_times_stand_beside_labels(subject):
    x, (fp32, int8), _ = subject
    found = libraries_of(subject)
    timings = cuda_speed.timed(found, {}, x, [fp32(x), int8(x)], 10, 0)
    same = {name: measure.agreement(library(x), int8(x)) for name, library in found.items()}
    run, rows = recording_run()
    table = cuda_speed.keep(run, timings, same, COMMON)
    assert list(table["variant"]) == list(found)
    kept = [(row["metric"], row["precision"], row["executor"]) for row in rows]
    for name in found:
        columns = cuda_variants.columns(name)
        for metric in ("latency", "agreement"):
            assert (metric, columns["precision"], columns["executor"]) in kept
    words = cuda_speed.words(timings)
    assert "times faster than our fp32" in words and "times faster than our fp16" in words


def test_integers_must_be_the_cpus_and_floats_close_to_them(subject):
    x, (fp32, int8), _ = subject
    expected = [fp32(x), int8(x)]
    wrong = libraries_of(subject, lambda y: y + np.float32(0.01))
    with pytest.raises(WorkbookError, match="tensor cores: its output is not that of the CPU"):
        cuda_speed.timed(wrong, {}, x, expected, 10, 0)
    noisy = cuda_speed.checker(*expected)
    with pytest.raises(WorkbookError, match=r"stock TVM, fp32: its output is \d+ dB from"):
        noisy(STOCK_FP32, tvm.runtime.tensor(expected[0] * np.float32(1.1)))


def test_labels_are_compared_with_the_cpus_integers(subject, monkeypatch):
    _, (fp32, int8), _ = subject
    seen = np.random.default_rng(0).standard_normal((5, 3, 32, 32), np.float32)
    monkeypatch.setattr(zoo, "evaluation_images", lambda *_: SimpleNamespace(x=seen))
    other = {"PyTorch (cuDNN), fp32": lambda x: lambda: tvm.runtime.tensor(-int8(x))}
    calls = cuda_speed.callables({FP32: fp32, MMA: int8}, other)
    same = cuda_speed.agreement(calls, int8, None, batch=2, count=5, seed=0)
    assert same[MMA].value == 1
    assert same[FP32].value > same["PyTorch (cuDNN), fp32"].value == 0
    assert {share.n for share in same.values()} == {5}


def test_copies_are_what_a_call_takes_beyond_the_run(subject):
    x, (_, int8), _ = subject
    assert isinstance(cuda_speed.copies(OnCpu(int8), x, 10, 0), float)


def test_what_does_not_run_here_is_told(subject, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found, missing = cuda_variants.others(SimpleNamespace(model=subject[2]), subject[0])
    assert found == {}
    assert [line.split(":")[0] for line in missing] == list(OTHERS)


def test_every_variant_compiles_from_what_it_needs():
    network, x = make("residual")
    fp32 = rq.frontends.from_torch(network, x, dynamic_batch=True)
    int8 = rq.quantize(fp32, rq.QConfig.best(calibrate_mode="global_scale"))
    modules = cuda_variants.Modules(fp32, int8)
    found = cuda_variants.compiled(modules, 2, "sm_80", 1)
    assert list(found) == list(cuda_variants.VARIANTS)
    used = {record.schedule for record in found[cuda_variants.DP4A].kernels if record.macs}
    assert used == {"cuda_dp4a"}
    for name in (cuda_variants.STOCK_FP16, FP16):
        halves = found[name].kernels.where(precision="fp16")
        assert sum(bool(record.macs) for record in halves) == 5
    for library in found.values():
        assert all(launch.blocks for launch in library.launches.values())
