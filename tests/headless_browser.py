"""A real browser without a window, driven over Chrome's debugging pipe.

Chromium or Chrome is taken from the path or from TFOD_ZOO_BROWSER. Where no package of the system has one, npm does:
`npm pack @sparticuz/chromium`, then unpack bin/chromium.br and bin/al2023.tar.br with brotli; the latter's lib/ goes on
LD_LIBRARY_PATH.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
_SECONDS = 60.0  # for any one answer, on a busy machine


def find_browser():
    """Path of a browser, or None."""
    return os.environ.get("TFOD_ZOO_BROWSER") or next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page; use as a context manager."""

    def __init__(self, path, profile):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        def as_three_and_four():
            # Copies first, out of the way: one of the pipes' own numbers may be 3 or 4.
            one, other = os.dup(to_browser), os.dup(from_browser)
            os.dup2(one, 3)
            os.dup2(other, 4)

        self._process = subprocess.Popen(
            [path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            preexec_fn=as_three_and_four, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self._session = b"", 0, None
        self.events = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def send(self, method, **params):
        """The result of one command; what happens meanwhile is added to `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self):
        until = time.monotonic() + _SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._in, 1 << 16)
            assert part, "the browser has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, url):
        """Loads a page and waits until all of it is there."""
        until = time.monotonic() + _SECONDS
        self.send("Page.navigate", url=url)
        while self.run("document.readyState + location.href") != "complete" + url:
            assert time.monotonic() < until, f"{url} does not load"
            time.sleep(0.02)

    def run(self, script):
        """The value of a JavaScript expression; an exception fails the test."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def show_as(self, *, width, height=900, dark=False):
        """As a window of that many CSS pixels would show it, in the light or the dark scheme."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)
        scheme = "dark" if dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]))
