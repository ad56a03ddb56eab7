"""A headless Chromium, asked over its DevTools pipe: no driver and no further package."""

from __future__ import annotations

import base64
import json
import os
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self


def browser_command() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    assert found, "this test needs a browser: install `chromium`"
    return found


class Browser:
    """One page. `requested` has the addresses of everything that it asked for."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        self.requested: list[str] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._number, self._rest, self._session = 0, b"", ""
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        command = [browser_command(), "--headless", "--no-sandbox", "--disable-gpu"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-proxy-server"]
        command += ["--disable-background-networking", "--disable-component-update", "about:blank"]

        # DevTools reads at 3 and writes at 4.
        moved = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", moved, "bash", *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._looks = selectors.DefaultSelector()
        self._looks.register(self._in, selectors.EVENT_READ)
        targets = self.ask("Target.getTargets", at_page=False)["targetInfos"]
        (target,) = (one["targetId"] for one in targets if one["type"] == "page")
        told = self.ask(
            "Target.attachToTarget", {"targetId": target, "flatten": True}, at_page=False
        )
        self._session = told["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM"):
            self.ask(f"{domain}.enable")
        self.sized(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._looks.close()
        os.close(self._in)
        os.close(self._out)

    def sized(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, address: str) -> None:
        self.ask("Page.navigate", {"url": address})

    def run(self, script: str) -> Any:
        """The value of a script on the page, awaited."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
        found = self.ask("Runtime.evaluate", asked)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """The script's first value that is true."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.run(script)
            if found:
                return found
            time.sleep(0.1)
        raise TimeoutError(f"not within {seconds:.0f} s: {script}\n{self.run(TEXT)}")

    def click(self, selector: str) -> None:
        self.wait(f"!!document.querySelector({selector!r})")
        self.run(f"document.querySelector({selector!r}).click()")

    def fill(self, selector: str, value: str) -> None:
        """Type into a field, as its own page notices it."""
        self.run(
            f"(() => {{ const field = document.querySelector({selector!r});"
            "const kind = Object.getPrototypeOf(field);"
            "const {set} = Object.getOwnPropertyDescriptor(kind, 'value');"
            f"set.call(field, {json.dumps(value)});"
            "for (const name of ['input', 'change', 'blur'])"
            "  field.dispatchEvent(new Event(name, {bubbles: true})); })()"
        )

    def choose(self, selector: str, value: str) -> None:
        """Type a choice into a drop-down list, and take it."""
        self.run(f"document.querySelector({selector!r}).focus()")
        self.run(f"document.querySelector({selector!r}).select()")
        self.ask("Input.insertText", {"text": value})
        self.wait("!!document.querySelector('[role=option]')")
        for kind in ("rawKeyDown", "keyUp"):
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
            self.ask("Input.dispatchKeyEvent", {"type": kind, **key})

    def choose_file(self, selector: str, file: Path) -> None:
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        asked = {"nodeId": root, "selector": selector}
        node = self.ask("DOM.querySelector", asked)["nodeId"]
        self.ask("DOM.setFileInputFiles", {"files": [str(file)], "nodeId": node})

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        asked = {"format": "png", "captureBeyondViewport": whole}
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", asked)["data"]))

    def ask(
        self, method: str, parameters: dict[str, Any] | None = None, *, at_page: bool = True
    ) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters or {}}
        if at_page:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._answer(self._number)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _answer(self, number: int, seconds: float = 60) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while number not in self._answers:
            if not self._looks.select(max(0, until - time.monotonic())):
                raise TimeoutError("the browser does not answer")
            self._rest += os.read(self._in, 1 << 20)
            *whole, self._rest = self._rest.split(b"\0")
            for text in whole:
                self._note(json.loads(text))
        return self._answers.pop(number)

    def _note(self, said: dict[str, Any]) -> None:
        if "id" in said:
            self._answers[said["id"]] = said
        elif said["method"] == "Network.requestWillBeSent":
            self.requested.append(said["params"]["request"]["url"])


TEXT = "document.body.innerText"
