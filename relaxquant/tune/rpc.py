"""Boards from TVM's RPC tracker: how to reach it, and a session with each free server."""

from __future__ import annotations

import os
import socket

from tvm import rpc

from ..errors import InputError, TargetError
from .board import Board

CONNECT_S = 5.0


def boards(tracker: str, key: str, threads: int, on_gpu: bool = False) -> list[Board]:
    """A session with every server that is free under a key.

    Parameters
    ----------
    tracker : str
        ``"host:port"``.
    key : str
        What the servers were started with.
    threads : int
        Threads of TVM's pool on each.
    on_gpu : bool
        Whether kernels are for the servers' GPUs; servers without one are left out.

    Raises
    ------
    InputError
        If the tracker does not answer, or has no free server with that key.
    TargetError
        If a GPU is asked for and no server has one.
    """
    session, free = _free_servers(tracker, key)
    found: list[Board] = []
    for index in range(1, free + 1):
        try:
            opened = session.request(key, max_retry=1)
            name = f"server {index} of {free} with key {key!r}"
            found.append(Board(name, opened, threads, on_gpu))
        except TargetError:
            if index == free and not found:
                raise
        except Exception as error:  # whatever TVM makes of a server that is gone
            if index == free and not found:
                raise InputError(
                    f"no server with key {key!r} at {tracker} answers ({error}): start it again"
                ) from error
    return found


def _free_servers(tracker: str, key: str) -> tuple[rpc.TrackerSession, int]:
    """The tracker, and how many servers are free under a key: at least one."""
    host, port = address(tracker)
    try:
        with socket.create_connection((host, port), CONNECT_S):
            pass
        session = rpc.connect_tracker(host, port)
        servers = session.summary()["queue_info"]
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(
            f"no RPC tracker answers at {tracker} ({error}): start one with "
            "python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port 9190"
        ) from error
    free = servers.get(key, {}).get("free", 0)
    if not free:
        known = ", ".join(sorted(servers)) or "none"
        raise InputError(
            f"the tracker at {tracker} has no free server with key {key!r} (keys: {known}): start "
            f"one with python -m tvm.exec.rpc_server --tracker {tracker} --key {key}"
        )
    return session, free


def address_and_key(tracker: str | None, key: str | None) -> tuple[str, str]:
    """What was given, or what TVM's environment variables say; InputError where neither does."""
    host, port = (os.environ.get(f"TVM_TRACKER_{word}", "") for word in ("HOST", "PORT"))
    tracker = tracker or (f"{host}:{port}" if host and port else "")
    key = key or os.environ.get("TVM_TRACKER_KEY", "")
    if not tracker or not key:
        raise InputError(
            "runner='rpc' needs tracker='host:port' and key='...', or $TVM_TRACKER_HOST, "
            "$TVM_TRACKER_PORT and $TVM_TRACKER_KEY"
        )
    address(tracker)
    return tracker, key


def address(tracker: str) -> tuple[str, int]:
    """Host and port; InputError for anything else than ``"host:port"``."""
    host, _, port = str(tracker).rpartition(":")
    if not host or not port.isdigit():
        raise InputError(
            f"tracker must be 'host:port', such as '192.168.0.2:9190', not {tracker!r}"
        )
    return host, int(port)
