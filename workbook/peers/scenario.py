"""One setting, many variants: prepared, loaded, checked, and timed against one another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from relaxquant.measure import Proportion, Timings, interleaved, wilson
from workbook.peers import registry
from workbook.peers.job import Job
from workbook.peers.materials import Materials
from workbook.peers.remote import Child, Worker, WorkerError
from workbook.threads import available

PREPARE_S = 900.0
PAUSE_S = 0.05
# Long against the 50 ms of rest, short enough that a round sees one state of the machine.
MIN_SAMPLE_S = 0.1
ALL_IMAGES = 1 << 20

Say = Callable[[str], Any]


@dataclass
class Found:
    """What one scenario gave.

    Attributes
    ----------
    jobs : dict
        Label -> `Job`, of every variant asked for.
    timings : Timings
        Of those that came through; without samples where none did.
    about : dict
        Label -> ``instructions``, ``peak_bytes`` and ``added_bytes``, of those that loaded.
    agreement : dict
        Label -> share of the images whose top class is PyTorch fp32's.
    failures : dict
        Label -> reason, of the others.
    """

    jobs: dict[str, Job]
    timings: Timings = field(default_factory=lambda: Timings({}))
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    agreement: dict[str, Proportion] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def materials(model: str, weights: str = "", seed: int = 0) -> Materials:
    """Make or find a network's materials, in a process of its own.

    Raises
    ------
    WorkerError
        Where that fails.
    """
    request = {"model": model, "weights": weights, "seed": seed}
    return Materials.loads(_ask({"make": request})["materials"])


def prepare(jobs: Iterable[Job]) -> dict[str, str]:
    """Write the models that are missing, in a process for each framework and network.

    Returns
    -------
    dict
        ``Job.dumps()`` -> reason, of the jobs that cannot be run.
    """
    jobs = list(jobs)
    failures = {job.dumps(): why for job in jobs if (why := registry.obstacle(job))}
    groups: dict[tuple, dict[str, Job]] = {}
    for job in jobs:
        if job.dumps() not in failures and (path := _missing(job)):
            groups.setdefault((job.peer, job.folder), {})[path] = job
    with ThreadPoolExecutor(available()) as pool:
        reasons = list(pool.map(_prepare, groups.values()))
    for group, reason in zip(groups.values(), reasons, strict=True):
        for job in jobs:
            if reason and _missing(job) in group:
                failures[job.dumps()] = reason
    return failures


def _missing(job: Job) -> str:
    """The file a job lacks, empty where it lacks none."""
    if registry.obstacle(job):
        return ""
    path = registry.PEERS[job.peer].adapter().artifact(job)
    return "" if path is None or path.exists() else str(path)


def _prepare(group: dict[str, Job]) -> str:
    try:
        _ask({"jobs": [job.dumps() for job in group.values()]})
    except WorkerError as error:
        return str(error)
    return ""


def _ask(request: dict) -> dict:
    child = Child("workbook.peers.prepare", {})
    with contextlib.closing(child):
        child.send(**request)
        return child.receive(PREPARE_S)


def run(
    jobs: Sequence[Job],
    failures: dict[str, str],
    rounds: int,
    seed: int = 0,
    known: dict[tuple, Proportion] | None = None,
    say: Say = lambda text: None,
    start: Callable[[Job, int], Any] = Worker,
) -> Found:
    """Load every variant into its own process, then time them interleaved.

    Parameters
    ----------
    jobs : sequence of Job
        Of one network, batch and thread count; labels unique.
    failures : dict
        As `prepare` returns it.
    rounds, seed : int
        As for `relaxquant.measure.interleaved`.
    known : dict, optional
        ``Job.computes`` -> agreement measured before; what is measured here is added to it.
    say : callable
        Told what goes on.
    start : callable
        Starts a worker for a job, with the count of images to measure agreement on.
    """
    known = {} if known is None else known
    found = Found({job.label: job for job in jobs})
    found.failures = {j.label: failures[j.dumps()] for j in jobs if j.dumps() in failures}
    workers: dict[str, Any] = {}
    try:
        asked = set(known)
        for job in jobs:
            if job.label not in found.failures:
                workers[job.label] = start(job, 0 if job.computes in asked else ALL_IMAGES)
                asked.add(job.computes)
        ready = _load(workers, found, known)
        say(f"timing {len(ready)} variants, {rounds} rounds")
        if ready:
            found.timings = interleaved(
                ready,
                rounds=rounds,
                seed=seed,
                min_sample_s=MIN_SAMPLE_S,
                pause_s=PAUSE_S,
                allow_few_rounds=True,
                lost=lambda name, error: found.failures.update({name: str(error)}),
            )
    finally:
        for worker in workers.values():
            worker.close()
    return found


def _load(workers: dict[str, Any], found: Found, known: dict) -> dict[str, Any]:
    """Wait for all; keep what they say of themselves."""
    ready = {}
    for label, worker in workers.items():
        try:
            about = worker.ready()
        except WorkerError as error:
            found.failures[label] = str(error)
            continue
        job = found.jobs[label]
        if about["images"]:
            known[job.computes] = wilson(about["agreed"], about["images"])
        found.about[label] = about
        ready[label] = worker
    for label in ready:
        if found.jobs[label].computes in known:
            found.agreement[label] = known[found.jobs[label].computes]
    return ready
