"""Post-training quantization: annotate, calibrate, insert q/dq. From fp32 Relax to QDQ Relax.

`relaxquant.quantize` is the function: reach modules of this package with
``from relaxquant.quantize.annotate import annotate``.
"""

from .annotate import Annotation, KeptFloat, QTensor, annotate
from .calibrate import calibrate
from .config import QConfig, QuantizeError, qconfig
from .debug import debug
from .debug_report import DebugReport
from .insert_qdq import insert_qdq
from .mixed import Budget
from .pipeline import quantize
from .sensitivity import LayerCost, Sensitivity, sensitivity
from .summary import SummaryRow, summary

__all__ = [
    "Annotation",
    "Budget",
    "DebugReport",
    "KeptFloat",
    "LayerCost",
    "QConfig",
    "QTensor",
    "QuantizeError",
    "Sensitivity",
    "SummaryRow",
    "annotate",
    "calibrate",
    "debug",
    "insert_qdq",
    "qconfig",
    "quantize",
    "sensitivity",
    "summary",
]
