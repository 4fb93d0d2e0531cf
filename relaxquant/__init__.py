"""relaxquant: automatic quantization and integer kernels for Apache TVM's Relax.

mod  = rq.frontends.from_torch(model, example_input)
qmod = rq.quantize(mod, rq.QConfig.best(), calibration=batches)
lib  = rq.compile(qmod)
y    = lib(x)
"""

from . import frontends, target
from .errors import InputError, ModelError, RelaxQuantError, TargetError
from .executors import Library, compile, load
from .inspect import Proof, proof
from .kernels.tuned import Tuned
from .quantize import Budget, QConfig, debug, qconfig, quantize, sensitivity, summary
from .tune import tune

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "InputError",
    "Library",
    "ModelError",
    "Proof",
    "QConfig",
    "RelaxQuantError",
    "TargetError",
    "Tuned",
    "compile",
    "debug",
    "frontends",
    "load",
    "proof",
    "qconfig",
    "quantize",
    "sensitivity",
    "summary",
    "target",
    "tune",
]
