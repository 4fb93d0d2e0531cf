"""Ours: compiled ahead of time, loaded from one file, as `Library.export` writes it.

Quantized once with a symbolic batch, so that every batch size has the same scales. The pool's
second thread is bound by TVM; the main thread is bound here, since otherwise both may be put on
one core.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbook.files import replacing
from workbook.peers import bind
from workbook.peers.job import Job
from workbook.peers.registry import Loaded, versions

if TYPE_CHECKING:
    from relaxquant import Library


def artifact(job: Job) -> Path:
    """``ours-...so``; the name tells CPU, schedule, and a digest of the compiler's own code."""
    return job.path(f"{_stem(job)}-{_digest()}.so")


def _stem(job: Job) -> str:
    from relaxquant.target import resolve

    cpu = resolve(job.target).attrs["mcpu"]
    return f"ours-{job.precision}-{job.schedule or 'default'}-b{job.batch}-{cpu}"


def _digest() -> str:
    import relaxquant

    digest = hashlib.sha256(versions("apache-tvm", "numpy").encode())
    for path in sorted(Path(relaxquant.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def prepare(jobs: Sequence[Job]) -> None:
    """Import and quantize once, compile and export each."""
    import numpy as np

    import relaxquant as rq
    from relaxquant import zoo
    from workbook import widths

    net = zoo.load_model(jobs[0].model, weights=jobs[0].weights or None)
    modules = {"fp32": rq.frontends.from_torch(net.model, net.example_input(2), dynamic_batch=True)}
    for precision in dict.fromkeys(job.precision for job in jobs if job.precision != "fp32"):
        images = np.load(jobs[0].path("calibration.npy"))
        modules[precision] = rq.quantize(
            modules["fp32"],
            widths.parse(precision).config(),
            calibration=[image[None] for image in images],
            target=jobs[0].target,
        )
    for job in jobs:
        for old in Path(job.folder).glob(f"{_stem(job)}-*.so"):
            old.unlink()
        chosen = {"schedule": job.schedule} if job.schedule else {}
        module = modules[job.precision]
        # The file is kept here; a library out of the compiler's own cache would be built again.
        library = rq.compile(module, job.target, batch=job.batch, threads=1, cache=False, **chosen)
        with replacing(artifact(job)) as path:
            library.export(path)


def load(job: Job, path: Path) -> Loaded:
    """Load the library for any number of threads."""
    library = exported(path, job.threads)
    return Loaded(library, _busiest(library.kernels))


def exported(path: Path, threads: int) -> Library:
    """Load what `Library.export` wrote, for any number of threads, before TVM is imported."""
    os.environ["TVM_NUM_THREADS"] = str(threads)
    import relaxquant as rq
    from relaxquant.executors import threads as pool

    library = rq.load(path)
    library.metadata = dataclasses.replace(library.metadata, threads=threads)
    # The pool first: as it is configured, TVM lets the main thread run anywhere again.
    pool.use(threads)
    bind.main_thread(threads)
    return library


def _busiest(kernels) -> str:
    """The instructions that do most of the multiply-accumulates."""
    macs: dict[str, int] = {}
    for record in kernels:
        macs[record.instructions] = macs.get(record.instructions, 0) + record.macs
    return max(macs, key=macs.__getitem__)
