"""Looking into modules: what a network computes with, before anything is run."""

from .operands import Operands, excerpt, operand_dtypes
from .roofline import LayerBound, layer_bounds

__all__ = ["LayerBound", "Operands", "excerpt", "layer_bounds", "operand_dtypes"]
