"""Drives the page of a running `utr serve` in headless Chromium, through chromedriver and the WebDriver protocol.

Usage: page.py URL FOLDER [TOKEN]. Asks a question, sees the answer stream in and the strip light up, and leaves screenshots in FOLDER (a desktop
and a phone, light and dark). Exits 0 and prints one JSON line where the page does what it should.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --hide-scrollbars""".split()
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """A session of chromedriver."""

    def __init__(self, profile):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={self.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.root = f"http://127.0.0.1:{self.port}"
        wait(lambda: self.call("GET", "/status")["ready"], "chromedriver")
        arguments = FLAGS + [f"--user-data-dir={profile}"]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.root += "/session/" + session["sessionId"]

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None

    def run(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, css):
        return self.call("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]

    def type(self, css, text):
        self.call("POST", f"/element/{self.find(css)}/value", {"text": text})

    def click(self, css):
        self.call("POST", f"/element/{self.find(css)}/click", {})

    def devtools(self, command, **parameters):
        self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("GET", "/screenshot")))

    def close(self):
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(10)


def wait(done, what, seconds=30):
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if value := done():
                return value
        except (RuntimeError, OSError) as error:
            last = error
        time.sleep(0.05)
    sys.exit(f"waited {seconds} s for {what} ({last})")


def drive(browser, url, folder, token):
    browser.call("POST", "/url", {"url": url})
    if token:
        wait(lambda: browser.run("return document.getElementById('locked').open"), "the token dialog")
        browser.type("#token", token)
        browser.click("#locked button")
    wait(lambda: browser.run("return document.getElementById('state').textContent") == "live", "the source to be live")
    wait(lambda: browser.run("return document.getElementById('picture').naturalWidth") > 1, "the live picture")
    window = "return [...document.querySelectorAll('#frames img')].filter(i => !i.hidden && i.naturalWidth > 0).length"
    wait(lambda: browser.run(window) >= 8, "eight pictures in the strip")

    # Lengths the answer's text had on its way: more than two mean that it streamed.
    browser.run(
        "window.lengths = new Set(); new MutationObserver(() => { const told = document.querySelector('.told');"
        "if (told) window.lengths.add(told.textContent.length); })"
        ".observe(document.getElementById('said'), {subtree: true, childList: true, characterData: true});"
    )
    browser.type("#question", "Describe the video.")
    browser.click("#send")
    answer = wait(
        lambda: browser.run(
            "return document.querySelector('.spark') && document.querySelector('.told:not(.busy)').textContent"
        ),
        "the answer",
    )
    steps = browser.run("return window.lengths.size")
    assert steps > 2, f"the answer came in {steps} steps"
    wait(lambda: browser.run("return document.querySelectorAll('#frames .lit').length"), "the strip to light up")
    lit = browser.run("return document.querySelectorAll('#frames .lit').length")
    titles = browser.run("return [...document.querySelectorAll('#frames li')].filter(l => l.title.includes('evidence')).length")
    assert titles >= 8, f"{titles} frames say their share"
    assert browser.run("return document.getElementById('show-answer').getAttribute('aria-pressed')") == "true"

    # What is saved is a recording: the bytes that the page's download link points to begin as MCAP files do.
    browser.run(
        "window.saved = null; const make = URL.createObjectURL;"
        "URL.createObjectURL = blob => { if (blob.type !== 'image/jpeg') blob.slice(1, 5).text().then(t => window.saved = t); return make(blob); };"
    )
    browser.click(".save")
    wait(lambda: browser.run("return window.saved") == "MCAP", "the answer to be saved")

    for size, (width, height, mobile) in {"desktop": (1280, 900, False), "phone": (390, 1500, True)}.items():
        browser.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )
        for scheme in ("light", "dark"):
            browser.devtools(
                "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
            )
            time.sleep(0.7)
            browser.screenshot(os.path.join(folder, f"{size}-{scheme}.png"))
        wide = browser.run("return document.documentElement.scrollWidth")
        assert wide <= width, f"{size}: the page is {wide} pixels wide on a screen of {width}"
    browser.click("#show-live")
    assert browser.run("return document.querySelectorAll('#frames .lit').length") == 0
    # What the browser complains about: scripts that fail, or what the page's own policy forbids. A wanted token shows as 401.
    log = browser.call("POST", "/se/log", {"type": "browser"})
    bad = [line["message"] for line in log if line["level"] == "SEVERE" and "401" not in line["message"]]
    assert not bad, bad
    return {"answer": answer, "steps": steps, "lit": lit}


def main():
    url, folder, token = sys.argv[1], sys.argv[2], (sys.argv[3:] or [None])[0]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            print(json.dumps(drive(browser, url, folder, token)))
        finally:
            browser.close()


main()
