"""Peak resident memory of a function, measured in a process of its own.

A process never gives its peak back, so what a function needs cannot be seen in a process that has
already done something else. The child here starts empty, and only then imports what the function
needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

_CHILD = Path(__file__).with_name("memory_child.py")


@dataclass(frozen=True)
class PeakMemory:
    """Resident memory of a function in a fresh process, bytes.

    Attributes
    ----------
    baseline_bytes : int
        Resident when the function was about to run: interpreter, imports, what `setup` left.
    peak_bytes : int
        Most that was resident while the function ran, baseline included.
    ru_maxrss_bytes : int
        Most that was resident in the life of the process, as getrusage tells it. On Linux a child
        inherits its parent's peak there, which is why it is not the measure.
    source : str
        Where `peak_bytes` comes from: "VmHWM" (Linux, reset just before the function), "VmHWM, not
        reset" (the peak includes imports and `setup`), or "ru_maxrss" (elsewhere, likewise).
    """

    baseline_bytes: int
    peak_bytes: int
    ru_maxrss_bytes: int
    source: str

    @property
    def added_bytes(self) -> int:
        """What the function added: peak minus baseline."""
        return self.peak_bytes - self.baseline_bytes


def peak_memory(
    function: Callable[..., Any],
    *args: Any,
    setup: Callable[[], Any] | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 600.0,
) -> PeakMemory:
    """Run a function in a fresh process and return its peak resident memory.

    Parameters
    ----------
    function : callable
        A function that the child can import, so one at the top level of a module: not a lambda, nor
        one written in a notebook cell or in the script that is being run.
    *args
        Its arguments; they are pickled, and counted in the baseline.
    setup : callable, optional
        Runs first, outside the measurement, and returns the first argument of `function`: say,
        a compiled network. Importable as well.
    env : mapping of str to str, optional
        Environment variables set in the child on top of the present ones, such as TVM_NUM_THREADS.
    timeout_s : float
        Seconds after which the child is killed.

    Returns
    -------
    PeakMemory

    Raises
    ------
    InputError
        `function`, `setup` or an argument cannot be handed to another process.
    RuntimeError
        The child failed, was killed (say, for want of memory) or ran out of time.
    """
    payload = _payload(function, args, setup)
    with tempfile.TemporaryDirectory(prefix="peak_memory_") as folder:
        out = Path(folder, "result.json")
        _run_child(payload, out, {**os.environ, **(env or {})}, timeout_s, _name(function))
        return PeakMemory(**json.loads(out.read_text()))


def _payload(function: Any, args: tuple, setup: Any) -> bytes:
    for role, value in {"function": function, "setup": setup}.items():
        if value is None and role == "setup":
            continue
        if not callable(value):
            raise InputError(f"{role} cannot be called: it is a {type(value).__name__}")
        if getattr(value, "__module__", None) == "__main__":
            raise InputError(
                f"{role} {_name(value)!r} lives in the running script or notebook, where a fresh "
                "process cannot find it: move it into a module"
            )
    try:
        work = pickle.dumps((function, args, setup))
    except Exception as error:
        raise InputError(
            f"cannot hand {_name(function)!r} to another process ({error}): "
            "use functions at the top level of a module, and arguments that pickle"
        ) from error
    return json.dumps(sys.path).encode() + b"\n" + work


def _run_child(payload: bytes, out: Path, env: dict, timeout_s: float, name: str) -> None:
    # -P: the child must not find this folder's modules as top-level ones.
    command = [sys.executable, "-P", str(_CHILD), str(out)]
    try:
        # Its standard output is dropped: what the function prints is of no use here.
        done = subprocess.run(
            command,
            input=payload,
            env=env,
            timeout=timeout_s,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"measuring {name!r} took longer than {timeout_s} s") from error
    if done.returncode != 0 or not out.exists():
        last = done.stderr.decode(errors="replace").strip()[-2000:]
        raise RuntimeError(f"measuring {name!r} failed: {_fate(done.returncode)}\n{last}")


def _fate(code: int) -> str:
    if code >= 0:
        return f"the process ended with status {code}"
    with contextlib.suppress(ValueError):
        code_name = signal.Signals(-code).name
        hint = " (often: out of memory)" if code_name == "SIGKILL" else ""
        return f"the process was ended by {code_name}{hint}"
    return f"the process was ended by signal {-code}"


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))
