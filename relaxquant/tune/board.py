"""Where kernels are run and timed while tuning: a board, or its GPU, behind TVM's RPC."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import tvm
from tvm.support import cc

from .. import target as targets
from ..errors import TargetError
from ..executors import threads as pool
from ..executors.program import quiet_stderr
from .device import DeviceTimed, built


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
    on_gpu : bool
        Whether kernels are for the board's GPU.

    Raises
    ------
    TargetError
        If they are, and it has none that its TVM knows.
    """

    is_here = False

    def __init__(self, name: str, session: tvm.rpc.RPCSession, threads: int, on_gpu: bool = False):
        self.name, self.session = name, session
        session.get_function("runtime.config_threadpool")(pool.BIG_CORES, threads)
        self.tvm = session.cuda() if on_gpu else session.cpu()
        self._count = 0
        if on_gpu and not self.tvm.exist:
            self.close()
            raise TargetError(
                f"{name} has no CUDA device, or a TVM without CUDA: start servers where there is "
                "one, under a key of their own, or tune for a CPU"
            )

    def timing(self) -> contextlib.AbstractContextManager:
        """While kernels are timed there: nothing, as the server has a process of its own."""
        return contextlib.nullcontext()

    def load(self, function: tvm.tirx.PrimFunc, target: tvm.target.Target):
        """Build and link a kernel, send it there and load it as a module whose one it is."""
        self._count += 1
        linkable = built(function, target)
        compiler = None if targets.runs_here(target) else f"{targets.triple(target)}-g++"
        link = cc.cross_compiler(compiler) if compiler else None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"kernel{self._count}.so"
            with quiet_stderr():
                linkable.export_library(str(path), fcompile=link)
            self.session.upload(bytearray(path.read_bytes()), path.name)
            module = self.session.load_module(path.name)
        self.session.remove(path.name)
        return module

    def timed(self, module, arguments: list) -> DeviceTimed:
        """The kernel, timed by the board."""
        return DeviceTimed(module, self.tvm, arguments)

    def is_alive(self) -> bool:
        """Whether the server still answers."""
        try:
            tvm.runtime.tensor(np.zeros(1, np.float32), self.tvm).numpy()
        except Exception:  # whatever TVM makes of a broken connection
            return False
        return True

    def close(self) -> None:
        """Give the server back to the tracker; tensors and kernels on it are lost."""
        with contextlib.suppress(Exception):  # of a server that is gone
            self.session.get_function("CloseRPCConnection")()
