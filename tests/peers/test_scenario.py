"""The protocol, with workers that only pretend."""

from __future__ import annotations

import itertools

import pytest

from relaxquant.measure.samples import AA_SUFFIX
from workbook.peers import compare, rows, scenario
from workbook.peers.job import Job
from workbook.peers.materials import Materials
from workbook.peers.remote import WorkerError

MATERIALS = Materials("nowhere", "file x.pth", True, "8 images", "7 images")
MS = 1_000_000


class Fake:
    """A worker with a constant speed, which may die while it loads or after some samples."""

    def __init__(self, job, images, log, ms, dies_after=None, dies_loading=False):
        self.job, self._log, self._ms, self._images = job, log, ms, images
        self._left = itertools.count() if dies_after is None else iter(range(dies_after))
        self._dies_loading = dies_loading
        self.closed = False

    def ready(self):
        if self._dies_loading:
            raise WorkerError("its process was ended by SIGSEGV")
        about = {"instructions": "mul", "peak_bytes": 3 << 20, "added_bytes": 1 << 20}
        return about | {"agreed": min(self._images, 7), "images": min(self._images, 7)}

    def __call__(self):
        self.elapsed_ns(1)

    def elapsed_ns(self, calls):
        self._log.append(self.job.label)
        if next(self._left, None) is None:
            raise WorkerError("its process was ended by SIGKILL")
        return calls * self._ms * MS

    def close(self):
        self.closed = True


def jobs():
    return [
        Job("ours fp32", "ours", "fp32", "resnet18"),
        Job("ours int8", "ours", "w8a8", "resnet18"),
        Job("ours int8" + AA_SUFFIX, "ours", "w8a8", "resnet18"),
        Job("ONNX Runtime int8", "onnxruntime", "w8a8", "resnet18"),
        Job("OpenVINO int8", "openvino", "w8a8", "resnet18"),
    ]


SPEEDS = {
    "ours fp32": 20,
    "ours int8": 6,
    "ours int8" + AA_SUFFIX: 6,
    "ONNX Runtime int8": 10,
    "OpenVINO int8": 400,
}


@pytest.fixture
def bench(monkeypatch):
    """Return a function that runs fake workers, and what it left: found, log, workers."""
    monkeypatch.setattr(scenario, "PAUSE_S", 0.0)

    def run(failures=None, rounds=10, **fates):
        log, workers = [], {}

        def start(job, images):
            fate = fates.get(job.label.replace(" ", "_"), {})
            workers[job.label] = Fake(job, images, log, SPEEDS[job.label], **fate)
            return workers[job.label]

        found = scenario.run(jobs(), failures or {}, rounds, start=start)
        return found, log, workers

    return run


def test_every_round_runs_every_variant_once_in_an_order_of_its_own(bench):
    found, log, workers = bench()
    assert len(found.timings.order) == 10
    assert all(sorted(turn) == sorted(SPEEDS) for turn in found.timings.order)
    assert len(set(found.timings.order)) > 1
    assert [found.timings.median(name) for name in SPEEDS] == pytest.approx(
        [ms / 1e3 for ms in SPEEDS.values()]
    )
    # A slow variant is sampled with one call, a quick one with enough to last.
    assert found.timings.inner["OpenVINO int8"] == 1
    assert found.timings.inner["ours int8"] * 6 >= 100
    assert set(log) == set(SPEEDS)
    assert all(worker.closed for worker in workers.values())


def test_a_worker_that_dies_is_one_line_and_the_others_are_kept(bench):
    found, _, workers = bench(
        ONNX_Runtime_int8={"dies_after": 9}, OpenVINO_int8={"dies_loading": True}
    )
    assert found.failures == {
        "OpenVINO int8": "its process was ended by SIGSEGV",
        "ONNX Runtime int8": "its process was ended by SIGKILL",
    }
    assert set(found.timings.samples) == set(SPEEDS) - set(found.failures)
    assert found.timings.ratio("ours int8", "ours fp32").value == pytest.approx(0.3)
    assert all(worker.closed for worker in workers.values())
    lines = {line["variant"]: line for line in rows.lines(found, [])}
    assert lines["OpenVINO int8"] == {
        "variant": "OpenVINO int8",
        "reason": "its process was ended by SIGSEGV",
    }
    assert lines["ours int8"]["ms"].startswith("6.00")


def test_all_may_fail(bench):
    dead = {"dies_loading": True}
    found, _, _ = bench(**{name.replace(" ", "_"): dead for name in SPEEDS})
    assert set(found.failures) == set(SPEEDS)
    assert compare.comparisons(found, "auto") == []
    assert rows.rows(found, [], MATERIALS, "auto") == []


def test_what_cannot_be_prepared_is_not_started(bench):
    missing = jobs()[3]
    found, log, workers = bench({missing.dumps(): "onnxruntime not installed: run 'make peers'"})
    assert missing.label not in workers
    assert missing.label not in log
    assert "make peers" in found.failures[missing.label]


def test_agreement_is_measured_once_for_what_computes_the_same(bench):
    found, _, workers = bench()
    assert workers["ours int8"]._images == scenario.ALL_IMAGES
    assert workers["ours int8" + AA_SUFFIX]._images == 0
    assert found.agreement["ours int8" + AA_SUFFIX] == found.agreement["ours int8"]


def test_rows_never_show_a_speed_without_agreement(bench):
    found, _, _ = bench()
    compared = compare.comparisons(found, "auto")
    kept = rows.rows(found, compared, MATERIALS, "auto")
    timed = {row["executor"] for row in kept if row["metric"] == "latency"}
    assert timed == {row["executor"] for row in kept if row["metric"] == "agreement"}
    assert len([row for row in kept if row["metric"] == "latency"]) == 4
    ratio = [row for row in kept if row["metric"] == "time_ratio"]
    assert {row["executor"] for row in ratio} == {
        "ours int8 / ours fp32, 1 thread",
        "ours int8 / ONNX Runtime int8, 1 thread",
        "ours int8 / OpenVINO int8, 1 thread",
    }
    assert [row["value"] for row in kept if row["metric"] == "noise_floor"] == [0.0]


def test_missing_package_names_the_way_out(monkeypatch):
    from workbook.peers import registry

    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert registry.obstacle(jobs()[4]) == ("openvino, onnx, nncf not installed: run 'make peers'")
    assert scenario.prepare([jobs()[4]]) == {jobs()[4].dumps(): registry.obstacle(jobs()[4])}


def test_a_framework_that_cannot_be_restricted_is_left_out(monkeypatch):
    from workbook.peers import registry

    monkeypatch.setattr(registry, "find_spec", lambda name: object())
    restricted = Job("x", "onnxruntime", "fp32", "resnet18", isa="avx2")
    assert registry.obstacle(restricted) == "left out: ONNX Runtime cannot be kept to AVX2"
    assert registry.obstacle(Job("x", "openvino", "fp32", "resnet18", isa="avx2")) == ""
