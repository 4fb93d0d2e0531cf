"""Where kernels are run and timed while tuning: this machine, or a board behind TVM's RPC."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tvm
from tvm.support import cc

from .. import target as targets
from ..executors import threads as pool
from ..executors.program import quiet_stderr


class LocalDevice:
    """This process.

    Parameters
    ----------
    threads : int
        Of TVM's pool.
    """

    name = "this machine"

    def __init__(self, threads: int):
        pool.use(threads)
        self.threads, self.cpu = threads, tvm.cpu()

    def timing(self) -> contextlib.AbstractContextManager:
        """While kernels are timed there."""
        return pool.bound(self.threads)

    def load(self, built: tvm.runtime.Executable, _target: tvm.target.Target):
        """The kernel ``main`` of a built module as a module to call."""
        return built.mod if hasattr(built, "mod") else built

    def timed(self, module, arguments: list) -> Callable[[], object]:
        """A function that runs the kernel once; whoever calls it looks at the clock."""
        kernel = module["main"]
        return lambda: kernel(*arguments)

    def is_alive(self) -> bool:
        """Whether anything can still be run there."""
        return True

    def close(self) -> None:
        """Nothing to give back."""


class Board:
    """A session with an RPC server.

    Parameters
    ----------
    name : str
        For messages.
    session : tvm.rpc.RPCSession
        From the tracker.
    threads : int
        Of TVM's pool on the board.
    """

    def __init__(self, name: str, session: tvm.rpc.RPCSession, threads: int):
        self.name, self.session = name, session
        session.get_function("runtime.config_threadpool")(pool.BIG_CORES, threads)
        self.cpu = session.cpu()
        self._count = 0

    def timing(self) -> contextlib.AbstractContextManager:
        """While kernels are timed there: nothing, as the server has a process of its own."""
        return contextlib.nullcontext()

    def load(self, built: tvm.runtime.Executable, target: tvm.target.Target):
        """Link a built module, send it there and load it."""
        self._count += 1
        compiler = None if targets.runs_here(target) else f"{targets.triple(target)}-g++"
        link = cc.cross_compiler(compiler) if compiler else None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"kernel{self._count}.so"
            with quiet_stderr():
                built.export_library(str(path), fcompile=link)
            self.session.upload(bytearray(path.read_bytes()), path.name)
            module = self.session.load_module(path.name)
        self.session.remove(path.name)
        return module

    def timed(self, module, arguments: list) -> Callable[[], float]:
        """A function that runs the kernel once and returns the seconds that the board measured."""
        evaluator = module.time_evaluator("main", self.cpu, number=1, repeat=1)
        return lambda: float(evaluator(*arguments).mean)

    def is_alive(self) -> bool:
        """Whether the server still answers."""
        try:
            tvm.runtime.tensor(np.zeros(1, np.float32), self.cpu).numpy()
        except Exception:  # whatever TVM makes of a broken connection
            return False
        return True

    def close(self) -> None:
        """Give the server back to the tracker; tensors and kernels on it are lost."""
        with contextlib.suppress(Exception):  # of a server that is gone
            self.session.get_function("CloseRPCConnection")()
