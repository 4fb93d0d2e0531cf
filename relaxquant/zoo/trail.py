"""The record of a provider chain: each step is logged once and kept for `provenance`."""

from __future__ import annotations

import logging

logger = logging.getLogger("relaxquant.zoo")


class Trail(list[str]):
    """Steps a provider chain took, oldest first.

    Parameters
    ----------
    subject : str
        What is looked for, e.g. a model name; stands before each log line.
    """

    def __init__(self, subject: str) -> None:
        super().__init__()
        self.subject = subject

    def say(self, step: str, level: int = logging.INFO) -> None:
        """Keep one step and log it to the logger ``relaxquant.zoo``."""
        self.append(step)
        logger.log(level, "%s: %s", self.subject, step)

    def warn(self, step: str) -> None:
        """Keep one step and log it as a warning."""
        self.say(step, logging.WARNING)
