"""Which settings and variants the standing benchmark has, and what the command line makes of it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from relaxquant.measure.samples import AA_SUFFIX
from workbook.errors import WorkbookError, hint
from workbook.peers.compare import DIRECT
from workbook.peers.job import Job
from workbook.peers.materials import Materials
from workbook.peers.registry import PEERS, label
from workbook.threads import available

# Model -> batch -> thread counts.
STANDARD = {
    "resnet18": {1: (1, 2), 8: (2,), 64: (2,)},
    "resnet50": {1: (1, 2)},
    "mobilenet_v2": {1: (1, 2)},
}
STANDARD_PEERS = ("onnxruntime", "openvino")
PRECISIONS = ("fp32", "w8a8")
FEW_BITS = ("w4a4",)  # of ours alone, at batch 1
ISAS = ("avx2",)
AVX2_TARGET = "x86-64-v3"  # the x86 baseline that has AVX2 and FMA and nothing wider


@dataclass(frozen=True)
class Setting:
    """One scenario: a network, a batch size, a thread count."""

    model: str
    batch: int
    threads: int

    def __str__(self) -> str:
        count = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.model}, batch {self.batch}, {count}"


def settings(
    models: Sequence[str] = (), batches: Sequence[int] = (), threads: Sequence[int] = ()
) -> list[Setting]:
    """Return the settings to measure: the standard ones, or what is named in their place.

    Raises
    ------
    WorkbookError
        For an unknown model, a batch below 1, or more threads than there are processors.
    """
    known = zoo_models()
    for model in models:
        if model not in known:
            raise WorkbookError(f"unknown model {model!r}: {hint(model, known)}")
    if any(batch < 1 for batch in batches):
        raise WorkbookError(f"a batch has at least 1 image, not {min(batches)}")
    if any(not 1 <= count <= available() for count in threads):
        raise WorkbookError(f"threads must be 1 to {available()}, the processors there are")
    chosen = []
    for model in models or STANDARD:
        standard = STANDARD.get(model, {1: (1, 2)})
        for batch in batches or standard:
            counts = threads or standard.get(batch, (2,))
            chosen += [Setting(model, batch, n) for n in counts if n <= available()]
    return chosen


def zoo_models() -> list[str]:
    """Return the networks there are."""
    from relaxquant import zoo

    return zoo.list_models()


def peers(names: Sequence[str] = ()) -> list[str]:
    """Return the frameworks to compare with, in the order of the registry; ours is always there.

    Raises
    ------
    WorkbookError
        For an unknown one.
    """
    for name in names:
        if name not in PEERS:
            raise WorkbookError(f"unknown peer {name!r}: {hint(name, PEERS)}")
    return [name for name in PEERS if name != "ours" and name in (names or STANDARD_PEERS)]


def check_isa(isa: str, target: str) -> None:
    """Raise WorkbookError for an unknown instruction set, and for one beside a target."""
    if isa and isa not in ISAS:
        raise WorkbookError(f"unknown instruction set {isa!r}: {hint(isa, ISAS)}")
    if isa and target != "native":
        raise WorkbookError(f"--isa {isa} chooses the target itself: leave out --target")


def default_schedule() -> str:
    """The schedule that `relaxquant.compile` takes unless told otherwise."""
    import relaxquant

    return inspect.signature(relaxquant.compile).parameters["schedule"].default


def jobs(
    setting: Setting,
    materials: Materials,
    names: Sequence[str],
    target: str = "native",
    isa: str = "",
    weights: str = "",
) -> list[Job]:
    """Return the variants of a setting: ours, its A/A control, ours direct, and the peers'."""
    common = {
        "model": setting.model,
        "batch": setting.batch,
        "threads": setting.threads,
        "folder": materials.folder,
        "weights": weights,
        "target": AVX2_TARGET if isa else target,
        "isa": isa,
    }
    schedules = [""] if default_schedule() == DIRECT else ["", DIRECT]
    chosen = [
        Job(label("ours", precision, schedule), "ours", precision, schedule=schedule, **common)
        for schedule in schedules
        for precision in PRECISIONS
    ]
    if setting.batch == 1:
        chosen += [Job(label("ours", width), "ours", width, **common) for width in FEW_BITS]
    chosen.append(Job(label("ours", "w8a8") + AA_SUFFIX, "ours", "w8a8", **common))
    chosen += [
        Job(label(name, precision), name, precision, **common)
        for name in names
        for precision in PRECISIONS
        if precision in PEERS[name].packages
    ]
    return chosen
