"""The machine and the software at a glance: what a figure cannot be read without."""

from __future__ import annotations

import relaxquant
from relaxquant.measure import machine
from workbook import facts

# The rest of what facts.lines says is for run.json.
SHOWN = ("processor", "instruction sets", "caches", "cores", "memory", "system", "packages")


def lines(target: str, threads: int) -> list[dict[str, str]]:
    """A line for each fact that decides what the figures of a notebook are.

    Parameters
    ----------
    target : str
        As for `relaxquant.compile`.
    threads : int
        Of every framework.
    """
    about = machine.facts()
    said = dict(facts.lines({"machine": about, "load": {"before": about["load"], "after": None}}))
    said = {label: said[label] for label in SHOWN if label in said}
    resolved = relaxquant.target.resolve(target)
    said["compiled for"] = (
        f"{relaxquant.target.name(resolved)}, {threads} thread{'s' if threads > 1 else ''}"
    )
    said["load"] = ", ".join(f"{value:.2f}" for value in about["load"] or [])
    return [{"what": label, "here": text} for label, text in said.items() if text]
