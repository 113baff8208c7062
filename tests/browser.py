"""A real browser, headless, told what to do over the DevTools protocol."""

import base64
import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

from mlops_mini.processes import ChildProcess

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-extensions", "--disable-background-networking",
    "--no-proxy-server", "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip


class Page:
    """One tab."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=60)
        self._n = 0
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._n += 1
        self._socket.send(json.dumps({"id": self._n, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._n:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page; a promise is waited for."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def reload(self) -> None:
        self.run("window.isOld = true")
        self.call("Page.reload")
        self.wait_for("window.isOld === undefined")

    def press(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true, at each frame that the page draws."""
        self.run(
            "new Promise((done, fail) => { const end = Date.now() + 30000; const look = () =>"
            f" ({condition}) ? done() : Date.now() > end"
            f" ? fail(new Error('never: ' + {json.dumps(condition)})) : setTimeout(look, 20);"
            " look(); })"
        )

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def set_offline(self, is_offline: bool) -> None:
        self.call(
            "Network.emulateNetworkConditions", offline=is_offline, latency=0,
            downloadThroughput=-1, uploadThroughput=-1,
        )  # fmt: skip

    def screenshot(self, file: Path, *, width: int, height: int, is_dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2,
            mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        shot = self.call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._socket.close()


@contextmanager
def opened(folder: Path) -> Iterator[Page]:
    """Start a browser with a profile of its own in a folder, and give its tab."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, f"no browser: install one of {NAMES}, or run pytest with -m 'not browser'"
    profile = folder / "profile"
    with ChildProcess(
        [program, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        name="the browser",
        log_file=folder / "browser.log",
    ) as child:
        port_file = profile / "DevToolsActivePort"
        port = child.wait_for(
            lambda: port_file.read_text().split("\n")[0] if port_file.exists() else None,
            what="the browser to listen",
            timeout_s=60,
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30) as answer:
            tabs = [tab for tab in json.loads(answer.read()) if tab["type"] == "page"]
        page = Page(tabs[0]["webSocketDebuggerUrl"])
        try:
            yield page
        finally:
            page.close()
