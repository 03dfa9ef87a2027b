"""A headless Chromium for tests, driven over the W3C WebDriver protocol (w3.org/TR/webdriver2) by plain HTTP."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import requests

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

KEYS = {
    "Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "End": "\ue010", "Home": "\ue011",
    "Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015",
}  # fmt: skip
"""The keys by name, as w3.org/TR/webdriver2 writes them."""


class Browser:
    """One session; logs of the console and of the network are kept by the driver."""

    def __init__(self, profile: Path, *, dark: bool = False) -> None:
        self._driver = subprocess.Popen(
            [str(DRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._driver.stdout is not None
        port = None
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                port = int(found[1])
                break
        self._base = f"http://127.0.0.1:{port}"
        switches = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={profile}",
        ]
        if dark:
            switches.append("--force-dark-mode")
        options = {"binary": CHROMIUM, "args": switches}
        logging = {"browser": "ALL", "performance": "ALL"}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logging}
        try:
            made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._stop_driver()
            raise
        self._base += f"/session/{made['sessionId']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._send("DELETE", "")
        finally:
            self._stop_driver()

    def open(self, path: Path, fragment: str = "") -> None:
        """Load the page anew, at `#fragment` where there is one."""
        self._send("POST", "/url", {"url": "about:blank"})  # a changed fragment alone loads nothing
        self._send("POST", "/url", {"url": path.resolve().as_uri() + (f"#{fragment}" if fragment else "")})

    def run(self, script: str, *arguments: object) -> Any:
        """The value of the script's `return`."""
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str) -> None:
        """Wait until the JavaScript expression is true, for events that come a moment later; at most 5 seconds."""
        until = f"const end = performance.now() + 5000; const look = () => ({condition}) ? done(true) : "
        until += "performance.now() > end ? done(false) : setTimeout(look, 10); look();"
        assert self.run(f"return new Promise((done) => {{ {until} }});"), condition

    def click(self, selector: str) -> None:
        """A real click on the first element the CSS selector finds; fails where another element covers it."""
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        element = next(iter(found.values()))
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        self._send("POST", f"/element/{element}/click", {})

    def type(self, selector: str, text: str) -> None:
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        element = next(iter(found.values()))
        self._send("POST", f"/element/{element}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Press keys of `KEYS` one after the other, wherever the focus is."""
        strokes = [{"type": kind, "value": KEYS[key]} for key in keys for kind in ("keyDown", "keyUp")]
        self._send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def scripts(self, *, run: bool) -> None:
        """Whether pages that are opened from now on run their scripts."""
        command = {"cmd": "Emulation.setScriptExecutionDisabled", "params": {"value": not run}}
        self._send("POST", "/goog/cdp/execute", command)

    def width(self, pixels: int, height: int = 900) -> None:
        """Of the page, as a phone or a desktop of that width shows it."""
        size = {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": pixels < 500}
        self._send("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": size})

    def scheme(self, name: str) -> None:
        """`light` or `dark`, as the reader prefers."""
        features = {"features": [{"name": "prefers-color-scheme", "value": name}]}
        self._send("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": features})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._send("GET", "/screenshot")))

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Entries since the last call: `browser` is the console, `performance` the network among others."""
        return self._send("POST", "/se/log", {"type": kind})

    def _send(self, method: str, path: str, body: object = None) -> Any:
        answer = requests.request(method, self._base + path, json=body, timeout=60)
        value = answer.json()["value"]
        assert answer.ok, value
        return value

    def _stop_driver(self) -> None:
        self._driver.terminate()
        self._driver.wait(timeout=20)
        if self._driver.stdout is not None:
            self._driver.stdout.close()
