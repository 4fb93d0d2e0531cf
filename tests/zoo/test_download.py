"""One file over HTTP, from a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading

import pytest

from relaxquant.zoo import download as module
from relaxquant.zoo.errors import FetchError

CONTENT = b"weights" * 50_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
# conftest replaces it so that no test reaches out by accident.
REAL_PROBE = module.probe


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(404 if self.path == "/absent" else 200)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/cut" else CONTENT)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """A proxy that the environment names is not asked."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(module, "probe", REAL_PROBE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_arrives_whole(site, empty_cache):
    target = empty_cache / "torchvision" / "net.pth"
    assert module.download(f"{site}/net", target, DIGEST[:8]).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "prefix", "message"),
    [
        ("/net", "00000000", "SHA-256 differs"),
        ("/cut", DIGEST[:8], "broke off|SHA-256 differs"),
        ("/absent", DIGEST[:8], "no network"),
    ],
)
def test_what_is_wrong_is_not_published(site, empty_cache, path, prefix, message):
    target = empty_cache / "net.pth"
    with pytest.raises(FetchError, match=message):
        module.download(site + path, target, prefix)
    assert not target.exists()
    assert not empty_cache.exists() or list(empty_cache.iterdir()) == []


def test_a_closed_port_is_known_at_once():
    with socket.socket() as closed:  # held, so that nobody else is given it, but not listened to
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
        assert "refused" in REAL_PROBE(address, 300.0)


def test_a_server_that_never_answers_is_given_up():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        assert REAL_PROBE(f"http://127.0.0.1:{mute.getsockname()[1]}/x", 0.2) is not None
