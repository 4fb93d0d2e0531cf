"""A headless Chromium, driven by its DevTools protocol: what a page asked for, and what it said.

https://chromedevtools.github.io/devtools-protocol; the websocket client comes with JupyterLab.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

from tests.waiting import SECONDS, until
from workbook import chromium

KEYS = {"Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
CTRL = 2


class Tab:
    """One tab; every event since `go` is kept in `events`."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=SECONDS, suppress_origin=True)
        self._numbers = itertools.count(1)
        self.events: list[tuple[str, dict[str, Any]]] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and return its result; events that come meanwhile are kept."""
        number = next(self._numbers)
        asked = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(asked))
        while (answer := self._next()).get("id") != number:
            pass
        assert "error" not in answer, f"{method}: {answer}"
        return answer["result"]

    def size(self, width: int, height: int = 900) -> None:
        """Set the window's width in CSS pixels; below 600 as a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def go(self, address: str) -> None:
        """Open an address and wait until all it asked for is there."""
        self.events.clear()
        page = self.call("Page.navigate", url=address)["loaderId"]
        while not self._is_loaded(page):
            self._next()

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript, and wait for what it promises."""
        found = self._evaluate(expression)
        assert "exceptionDetails" not in found, f"{expression}: {found}"
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = SECONDS) -> Any:
        """Evaluate JavaScript until it gives something true; till then it may throw."""
        end = time.monotonic() + seconds
        while not (value := (found := self._evaluate(expression))["result"].get("value")):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}: {found}"
            time.sleep(0.2)
        return value

    def centre(self, element: str) -> tuple[float, float]:
        """Bring an element, a JavaScript expression, into view; return where its middle is.

        Waited for and measured in one evaluation: JupyterLab takes cells out of the page and puts
        them back while it lays a notebook out, so what was just there may be gone.
        """
        middle = (
            "(e => { e.scrollIntoView({block: 'nearest'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2] })"
        )
        return tuple(self.until(f"{middle}({element})"))

    def click(self, element: str) -> None:
        """Move the mouse to an element, a JavaScript expression, once it is there, and click."""
        x, y = self.centre(element)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def focus(self, element: str) -> None:
        """Click an element until it has the keyboard: clicks are lost while a page is laid out."""
        end = time.monotonic() + SECONDS
        while not self.value(f"!!({element}) && document.activeElement == ({element})"):
            assert time.monotonic() < end, f"it takes no focus: {element}"
            self.click(element)
            time.sleep(0.3)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key of `KEYS`, or a letter's."""
        code = KEYS.get(key) or ord(key.upper())
        how = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code}
        how["code"] = key if key in KEYS else f"Key{key.upper()}"
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **how)

    def write(self, text: str) -> None:
        """Put text in the place of all that the focused editor holds."""
        self.press("a", CTRL)
        self.call("Input.insertText", text=text)

    def asked(self) -> list[str]:
        """Return the addresses that the page asked for."""
        sent = [p for name, p in self.events if name == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in sent]

    def complaints(self) -> list[str]:
        """Return failed requests, console errors and exceptions."""
        said = []
        empty = {
            event["requestId"]
            for name, event in self.events
            if name == "Network.responseReceived" and event["response"]["status"] == 204
        }
        for name, event in self.events:
            # Chromium calls an answer that has no body aborted, after it has come.
            if name == "Network.loadingFailed" and event["requestId"] not in empty:
                said.append(f"failed: {event['errorText']}")
            elif name == "Network.responseReceived" and event["response"]["status"] >= 400:
                said.append(f"{event['response']['status']}: {event['response']['url']}")
            elif name == "Runtime.exceptionThrown":
                said.append(f"exception: {event['exceptionDetails']['text']}")
            elif name == "Runtime.consoleAPICalled" and event["type"] in ("error", "assert"):
                said.append(f"console: {event['args']}")
            elif name == "Log.entryAdded" and event["entry"]["level"] == "error":
                said.append(f"log: {event['entry']['text']}")
        return said

    def picture(self, path: Path) -> None:
        """Save the whole page as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _is_loaded(self, page: str) -> bool:
        """Whether the page of that loader is; the load of the one before may come late."""
        loaded = {"name": "load", "loaderId": page}
        return any(
            name == "Page.lifecycleEvent" and loaded.items() <= event.items()
            for name, event in self.events
        )

    def _evaluate(self, expression: str) -> dict[str, Any]:
        return self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )

    def _next(self) -> dict[str, Any]:
        message = json.loads(self._socket.recv())
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message


@contextlib.contextmanager
def opened(profile: Path) -> Iterator[Tab]:
    """Start a browser with a profile of its own, yield its tab, and end it."""
    command = [chromium.find(), *chromium.options(profile), "--hide-scrollbars"]
    profile.mkdir(exist_ok=True)
    said = profile / "said.txt"  # a pipe that nobody reads would stop it when it is full
    with (
        said.open("w") as out,
        subprocess.Popen(
            [*command, "--remote-debugging-port=0", "about:blank"], stdout=out, stderr=out
        ) as process,
    ):
        try:
            host = until(lambda: _listening(said), "the browser's address", process, said)
            yield Tab(until(lambda: _tab_of(host), "the browser's tab", process))
        finally:
            process.terminate()


def _listening(said: Path) -> str | None:
    found = re.search(r"DevTools listening on ws://([\d.]+:\d+)/", said.read_text())
    return found and found[1]


def _tab_of(host: str) -> str | None:
    with urllib.request.urlopen(f"http://{host}/json", timeout=SECONDS) as answer:
        tabs = json.load(answer)
    return next((t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page"), None)
