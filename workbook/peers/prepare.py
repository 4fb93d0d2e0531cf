"""``python -m workbook.peers.prepare``: the process that writes materials and quantized models.

Apart from the workers, whose peak memory is to be that of loading and running only. A request is
``{"make": {...}}`` for a network's materials, or ``{"jobs": [...]}`` for one framework's models.
"""

from __future__ import annotations

import logging

from workbook.peers import channel, materials
from workbook.peers.job import Job
from workbook.peers.registry import PEERS


def main() -> None:
    """Answer requests until the line is closed."""
    stream = channel.claim_stdout()
    logging.disable(logging.WARNING)  # the provider chain's words are in the materials
    for request in channel.requests():
        try:
            channel.answer(stream, ok=True, **_done(request))
        except Exception as error:
            channel.answer(stream, ok=False, reason=channel.reason(error))


def _done(request: dict) -> dict:
    if "make" in request:
        return {"materials": materials.make(**request["make"]).dumps()}
    jobs = [Job.loads(text) for text in request["jobs"]]
    PEERS[jobs[0].peer].adapter().prepare(jobs)
    return {}


if __name__ == "__main__":
    main()
