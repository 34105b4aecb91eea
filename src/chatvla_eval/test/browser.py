# SPDX-License-Identifier: Apache-2.0
"""A real headless browser for tests of pages."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

__all__ = ["Browser"]


class Browser:
    """Chromium through its WebDriver, with the standard library only."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.driver = subprocess.Popen(
            [shutil.which("chromedriver"), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
            f"--disable-component-update --disable-sync --user-data-dir={folder}"
        ).split()
        wanted = {"goog:chromeOptions": {"args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
        deadline = time.monotonic() + 60
        while True:
            try:
                self.session = self.call("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
                return
            except OSError:
                if time.monotonic() > deadline:
                    self.driver.kill()
                    raise
                time.sleep(0.3)

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]

    def do(self, path, **body):
        return self.call(f"/session/{self.session}{path}", body)

    def run(self, script):
        return self.do("/execute/sync", script=script, args=[])

    def open(self, path, *, width=1200, height=900, dark=False):
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.do("/goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": features})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.do("/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=size)
        self.do("/url", url=f"file://{path}")

    def picture(self, path):
        answer = self.call(f"/session/{self.session}/screenshot")
        Path(path).write_bytes(base64.b64decode(answer))

    def log(self):
        return self.do("/se/log", type="browser")

    def close(self):
        try:
            request = urllib.request.Request(f"{self.url}/session/{self.session}", method="DELETE")
            urllib.request.urlopen(request, timeout=20).close()
        finally:
            self.driver.terminate()
            self.driver.wait(timeout=10)
