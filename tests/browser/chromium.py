"""Chromium with one page, driven over its own pipe (DevTools protocol), so that nothing else is needed. No name is resolved; only this machine is reachable."""

import base64
import json
import os
import subprocess
import time

CHROMIUM = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe"]
PATIENCE = 60


class Browser:
    """Chromium with one page. Messages are JSON that ends with a zero byte."""

    def __init__(self, profile):
        to_browser, self.out = os.pipe()
        self.inp, from_browser = os.pipe()

        def on_3_and_4():
            # The ends may have these numbers already: first away from them.
            read, write = os.dup(to_browser), os.dup(from_browser)
            os.dup2(read, 3)
            os.dup2(write, 4)

        self.process = subprocess.Popen([*CHROMIUM, f"--user-data-dir={profile}", "about:blank"], preexec_fn=on_3_and_4, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.rest, self.number, self.session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def message(self):
        while b"\0" not in self.rest:
            part = os.read(self.inp, 1 << 20)
            if not part:
                raise RuntimeError("Chromium ended")
            self.rest += part
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def call(self, method, **params):
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.out, json.dumps(request).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def open(self, url):
        """Loads a page, and returns what happened: the requests, and everything that the console got."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())
        # A second call: what the page caused has been told before its answer. The pause is not one of the page, whose scripts may be off.
        time.sleep(0.3)
        self.value("1")
        of = lambda method: [event["params"] for event in self.events if event.get("method") == method]
        requests = [event["request"]["url"] for event in of("Network.requestWillBeSent")]
        console = [event["entry"]["text"] for event in of("Log.entryAdded")]
        console += [str(event) for event in of("Runtime.consoleAPICalled") + of("Runtime.exceptionThrown")]
        return requests, console

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)["result"].get("value")

    def end(self):
        self.process.terminate()
        self.process.wait(PATIENCE)

    def picture(self, file, beyond=True):
        """Writes the page as PNG: the whole of it, or what the window shows."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=beyond)
        file.write_bytes(base64.b64decode(picture["data"]))

    def press(self, key, text=""):
        """Presses and releases a key."""
        code = {"Tab": 9, "Enter": 13}[key]
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def wait_for(self, condition):
        """Waits until an expression is true, also in a page that is being loaded."""
        began = time.monotonic()
        while not self.value(condition):
            assert time.monotonic() - began < PATIENCE, f"not within {PATIENCE} s: {condition} in {self.value('document.body.innerText')}"
            time.sleep(0.05)
