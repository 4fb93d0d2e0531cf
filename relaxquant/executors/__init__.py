"""Executors: from a Relax module to something that runs, is inspected, saved and loaded."""

from .build import compile
from .library import Library, load

__all__ = ["Library", "compile", "load"]
