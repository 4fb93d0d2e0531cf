"""What tuning found: for each distinct layer the schedule and tile that ran fastest, as JSON."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from ..errors import InputError
from .dot_choice import choose_dots
from .intrinsics import InstructionSet
from .pack import channel_quads, pack_conv
from .spec import ConvSpec, ConvWeights, EpilogueSpec, TensorSpec
from .tile import Tile
from .tir import BLOCK, ceildiv

METASCHEDULE = "metaschedule"  # the schedule that replays what a search found
TUNED = "tuned: "  # how the reason begins of every kernel that a result has chosen


@dataclass(frozen=True)
class Setting:
    """What a timing holds for; another setting needs another tuning.

    Attributes
    ----------
    target : str
        LLVM's name of the CPU that is compiled for.
    isa : str
        Instruction set.
    threads : int
        Threads of the pool.
    machine : str
        The processor that it was timed on.
    versions : str
        Of TVM, and a hash of the kernels' source.
    """

    target: str
    isa: str
    threads: int
    machine: str
    versions: str


@dataclass(frozen=True)
class Choice:
    """The fastest kernel of one layer.

    Attributes
    ----------
    layer : str
        The layer in words, for whoever reads the file.
    schedule, tile : str
        What ran fastest; no tile where the schedule has none, or chooses its own.
    reason : str
        What ``lib.kernels`` says of it.
    replaces_rule : bool
        Whether it is another kernel than the rules' choice.
    speedup, low, high : float
        Times as fast as the rules' choice, and its 95 % interval; 1 where it is that choice.
    candidates : int
        Kernels that were built and run.
    trace : str
        The fastest that MetaSchedule found, as JSON, whether or not it is the fastest of all; empty
        where there was no search.
    trials : int
        Schedules that MetaSchedule tried.
    trace_ms : float
        Milliseconds of the fastest of them, when it was found.
    """

    layer: str
    schedule: str
    tile: str
    reason: str
    replaces_rule: bool
    speedup: float
    low: float
    high: float
    candidates: int
    trace: str = field(repr=False, default="")
    trials: int = 0
    trace_ms: float = 0.0

    @property
    def trace_reason(self) -> str:
        """What ``lib.kernels`` says where MetaSchedule's kernel was asked for."""
        return f"{TUNED}MetaSchedule's best of {self.trials}"

    @property
    def register_tile(self) -> Tile | None:
        """The tile, None where there is none."""
        return Tile.parse(self.tile) if self.tile else None


@dataclass
class Tuned:
    """Choices by layer, for one setting; what `relaxquant.tune` returns and ``compile`` takes."""

    setting: Setting
    choices: dict[str, Choice] = field(default_factory=dict)
    path: Path | None = None

    def choice(self, spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> Choice | None:
        """What was found for a layer; None if it was not tuned."""
        return self.choices.get(layer_key(spec, weights, isa))

    def fingerprint(self) -> str:
        """SHA-256 of what matters to a compiled network: the choices, not how they were found."""
        kernels = {key: (c.schedule, c.tile, c.reason, c.trace) for key, c in self.choices.items()}
        return _sha256([asdict(self.setting), kernels])

    def check(self, target: str, isa: InstructionSet, threads: int) -> None:
        """Raise InputError unless the choices were timed for this target and thread count."""
        asked = (target, isa.name, threads)
        timed = (self.setting.target, self.setting.isa, self.setting.threads)
        if asked != timed:
            raise InputError(
                f"tuned for target {timed[0]!r} ({timed[1]}) with {timed[2]} threads, compiled for "
                f"{asked[0]!r} ({asked[1]}) with {asked[2]}: tune for that, or leave tuned= out"
            )

    def save(self) -> None:
        """Write the file at once and whole, if the result has one: a reader never sees half."""
        if self.path is None:
            return
        layers = {key: asdict(choice) for key, choice in self.choices.items()}
        text = json.dumps({"setting": asdict(self.setting), "layers": layers}, indent=1)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            part.write_text(text + "\n", encoding="utf-8")
            os.replace(part, self.path)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}): give tune another path"
            ) from error


def read(path: Path) -> Tuned | None:
    """The result in a file; None, with one warning, where it is not one.

    Raises
    ------
    InputError
        If there is no such file.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        choices = {key: Choice(**value) for key, value in plain["layers"].items()}
        for choice in choices.values():
            _ = choice.register_tile
        return Tuned(Setting(**plain["setting"]), choices, path)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}: write it with relaxquant.tune") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(
            f"{path} holds no tuning result and is not used ({type(error).__name__}): "
            "relaxquant.tune writes it anew",
            stacklevel=2,
        )
        return None


def load(tuned: Tuned | str | Path | None) -> Tuned | None:
    """What ``compile(tuned=...)`` was given, as a result that this version can use.

    A file that is corrupt, or was timed with other kernels or another TVM, is warned about and
    left out.

    Raises
    ------
    InputError
        If the file does not exist, or ``tuned`` is neither a result nor a path.
    """
    if tuned is None:
        return None
    if isinstance(tuned, str | Path):
        tuned = read(Path(tuned))
        if tuned is None:
            return None
    if not isinstance(tuned, Tuned):
        raise InputError(
            f"tuned must be what relaxquant.tune returns, or the path of its file, not a "
            f"{type(tuned).__name__}"
        )
    if tuned.setting.versions != versions():
        warnings.warn(
            f"{tuned.path or 'the tuning result'} was timed with {tuned.setting.versions}, not "
            f"{versions()}, and is not used: tune again",
            stacklevel=3,
        )
        return None
    return tuned


def layer_key(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> str:
    """Equal for layers that run equally fast: their shapes and the dot product they can use.

    Which zero points a layer has does not matter, only whether they are 0; nor how it requantizes.
    """
    residual = _without_zero_point(spec.epilogue.residual)
    plain = replace(
        spec,
        data=_without_zero_point(spec.data),
        out=_without_zero_point(spec.out),
        epilogue=EpilogueSpec(residual, spec.epilogue.clip, spec.epilogue.narrow),
    )
    return _sha256([asdict(plain), isa.name, _dot_product(spec, weights, isa)])[:16]


def _dot_product(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> str:
    """What the ranges of the weights allow, chains of dot products included; empty for fp32."""
    if spec.precision != "int8":
        return "" if spec.precision == "fp32" else str(weights.weight.dtype)
    fours = ceildiv(spec.data.block, 4)
    longest = max(dot.chain for dot in isa.dots)
    quads = channel_quads(weights.weight, 4 * fours)
    everywhere = isa.dot_for(quads, spec.data.largest, min(fours, longest))
    if spec.data.block != BLOCK or spec.groups > 1:
        return everywhere.name
    # As `tensor_intrin.dot_products`: a trace is of both.
    dots = choose_dots(spec, everywhere, isa, pack_conv(spec, weights.weight, BLOCK))
    return " else ".join(dot.name for dot in (dots.often, everywhere) if dot)


def _without_zero_point(tensor: TensorSpec | None) -> TensorSpec | None:
    return tensor and replace(tensor, zero_point=int(tensor.zero_point != 0))


@functools.cache
def versions() -> str:
    """TVM's version and a hash of the kernels' source: what a timing cannot outlive."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return f"TVM {version('apache-tvm')}, kernels {digest.hexdigest()[:12]}"


def _sha256(plain) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
