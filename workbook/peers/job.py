"""What one variant is: handed to the processes that prepare and run it, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One variant of one network.

    Attributes
    ----------
    label : str
        Name in tables, unique in its scenario.
    peer : str
        Key of `registry.PEERS`.
    precision : str
        ``"fp32"``, ``"w8a8"``, or for ours any other width.
    model, weights : str
        As for `relaxquant.zoo.load_model`; empty weights: the provider chain decides.
    batch, threads : int
        Images in one inference; threads of the framework.
    folder : str
        The network's materials.
    target, schedule : str
        For ours: as for `relaxquant.compile`; an empty schedule is the compiler's own choice.
    isa : str
        ``"avx2"`` keeps a framework that can be told from wider instructions; empty: the best.
    """

    label: str
    peer: str
    precision: str
    model: str
    batch: int = 1
    threads: int = 1
    folder: str = ""
    weights: str = ""
    target: str = "native"
    schedule: str = ""
    isa: str = ""

    def path(self, name: str) -> Path:
        """Return a file of the network's materials."""
        return Path(self.folder, name)

    @property
    def computes(self) -> tuple:
        """What decides its outputs: not the threads, nor what it is called."""
        return (self.peer, self.precision, self.model, self.batch, self.schedule, self.target)

    def dumps(self) -> str:
        """JSON on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Job:
        """The inverse of `dumps`."""
        return cls(**json.loads(text))
