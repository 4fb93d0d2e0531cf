"""Looking into modules: what a network computes with, before anything is run."""

from .operands import Operands, excerpt, operand_dtypes

__all__ = ["Operands", "excerpt", "operand_dtypes"]
