"""Tuning on boards: a tracker and two servers on this machine, one of which dies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tvm import rpc
from tvm.rpc.tracker import Tracker

import relaxquant as rq
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.tuned import Choice, read
from relaxquant.lower import ConvLayer
from relaxquant.tune import metaschedule
from relaxquant.tune.database import FAILED_S, TuningDatabase
from relaxquant.tune.devices import Devices
from relaxquant.tune.metaschedule import Search
from relaxquant.tune.rpc import address, address_and_key, boards
from tests import waiting
from tests.kernels.harness import conv_layer, target_of
from tests.networks import make

KEY = "test-board"


@pytest.fixture(autouse=True)
def small_searches(monkeypatch):
    monkeypatch.setattr(metaschedule, "POPULATION", 8)
    monkeypatch.setattr(metaschedule, "GENERATIONS", 1)


class Cluster:
    """A tracker, and two servers, each in a process group of its own."""

    def __init__(self):
        self.servers: list[subprocess.Popen] = []
        self._tracker = Tracker("127.0.0.1", *ports())
        self.tracker = f"127.0.0.1:{self._tracker.port}"
        for _ in range(2):
            self._start_server()
        self.wait_for_servers()

    def wait_for_servers(self) -> None:
        """Until both are free: a server says so when its last session has ended."""
        waiting.until(lambda: self._free() == 2, "two free servers")

    def _start_server(self) -> None:
        first, end = ports()
        command = [
            sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1",
            "--port", str(first), "--port-end", str(end), "--tracker", self.tracker, "--key", KEY,
        ]  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.servers.append(subprocess.Popen(command, start_new_session=True, **quiet))

    def _free(self) -> int:
        session = rpc.connect_tracker("127.0.0.1", self._tracker.port)
        return session.summary()["queue_info"].get(KEY, {}).get("free", 0)

    def stop(self) -> None:
        for process in self.servers:
            kill(process)
        self._tracker.terminate()


def ports() -> tuple[int, int]:
    """Where to look for a free port: the one that is free now may be taken in a second."""
    with bound_port() as first:
        return first, min(first + 1000, 2**16)


@contextlib.contextmanager
def bound_port() -> Iterator[int]:
    """A port on which nobody listens, and which nobody else is given."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def kill(process: subprocess.Popen) -> None:
    """The server's session runs in a child of its own, which has to go too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    yield made
    made.stop()


def search(layer, folder) -> Search:
    target = target_of("native")
    given = ConvLayer("layer", "shape", layer.spec, layer.weights)
    return Search(given, "key", instruction_set(target), target, 1, TuningDatabase(folder))


def test_two_servers_give_the_same_kind_of_result_as_this_machine(cluster, tmp_path):
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    calibration = [torch.randn(2, 3, 32, 32, generator=torch.manual_seed(1)).numpy()]
    module = rq.quantize(module, rq.QConfig.best(), calibration=calibration)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rq.tune(
            module, threads=1, path=tmp_path / "t.json", budget_s=0.05, method="metaschedule",
            trials=2, runner="rpc", tracker=cluster.tracker, key=KEY,
        )  # fmt: skip
    assert found.setting.machine == f"RPC {KEY}"
    assert read(tmp_path / "t.json") == found
    searched = [choice for choice in found.choices.values() if choice.trace]
    assert len(searched) == 4
    assert all(isinstance(choice, Choice) and choice.trace_ms > 0 for choice in searched)
    folder = next(path for path in tmp_path.iterdir() if path.is_dir())
    lines = [line for key in found.choices for line in TuningDatabase(folder).history(key)]
    assert len({line["device"] for line in lines}) == 2, "both servers measured"
    library = rq.compile(module, threads=1, schedule="metaschedule", tuned=found)
    assert library.kernels.tuned == 4
    np.testing.assert_array_equal(library(x), rq.compile(module, threads=1)(x))


def test_a_server_that_dies_is_dropped_and_the_search_goes_on(cluster, tmp_path):
    layer = conv_layer(out_channels=32, size=(10, 10))
    searched = search(layer, tmp_path)
    cluster.wait_for_servers()
    devices = Devices(boards(cluster.tracker, KEY, 1), searched.target)
    assert len(devices.alive) == 2
    dying = cluster.servers[0]

    def tell(_text: str) -> None:
        if dying.poll() is None:
            kill(dying)

    with pytest.warns(UserWarning, match="was lost .*; going on with 1 other"):
        found = searched.run(devices, 8, tell)
    assert found.tried == 8
    assert found.seconds < FAILED_S
    assert len(devices.alive) == 1
    kill(cluster.servers[1])
    with pytest.raises(rq.InputError, match=r"was lost .* there is no other: start a server"):
        searched.run(devices, 12, lambda _: None)
    assert search(layer, tmp_path).tried >= 8, "what was measured is kept"
    with pytest.raises(rq.InputError, match=f"no free server with key '{KEY}'|answers"):
        boards(cluster.tracker, KEY, 1)


def test_what_is_not_there_is_one_error(monkeypatch):
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    with bound_port() as port:
        here = f"127.0.0.1:{port}"
        arguments = {"runner": "rpc", "tracker": here, "key": KEY, "threads": 1}
        with pytest.raises(rq.InputError, match=f"no RPC tracker answers at {here}"):
            rq.tune(module, **arguments)
    with pytest.raises(rq.InputError, match="threads must say how many"):
        rq.tune(module, **arguments | {"threads": None})
    with pytest.raises(rq.InputError, match="tracker must be 'host:port'"):
        rq.tune(module, **arguments | {"tracker": "rpi"})
    for word in ("HOST", "PORT", "KEY"):
        monkeypatch.delenv(f"TVM_TRACKER_{word}", raising=False)
    with pytest.raises(rq.InputError, match="needs tracker='host:port' and key"):
        rq.tune(module, **arguments | {"tracker": None})


def test_the_tracker_may_come_from_the_environment(monkeypatch):
    for word, value in (("HOST", "board.local"), ("PORT", "9190"), ("KEY", "rpi")):
        monkeypatch.setenv(f"TVM_TRACKER_{word}", value)
    assert address_and_key(None, None) == ("board.local:9190", "rpi")
    assert address_and_key("other:1", "key") == ("other:1", "key")
    assert address("other:1") == ("other", 1)
