"""Opens reports in Chromium without network and fails if one is not as it must be.

A report must load nothing but itself, run nothing, violate no policy, fit the width of the window, and print. A second file with a script and an image
from elsewhere shows that this check would see them. Chromium is driven over its own pipe (DevTools protocol), so that nothing else is needed.

    check.py FOLDER FILE...      writes FILE.png and FILE.pdf into FOLDER
"""

import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile

CHROMIUM = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe"]
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
        # A second call: what the page caused has been told before its answer.
        self.value("new Promise(done => setTimeout(() => done(1), 300))")
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


def fits(browser, file, width):
    wide = browser.value("Math.max(...[document.documentElement, ...document.querySelectorAll('.table')].map(box => box.scrollWidth - box.clientWidth))")
    assert wide <= 0, f"{file}: {wide} pixels do not fit the width {width}"


def check(browser, folder, file):
    url = file.resolve().as_uri()
    for width in (1280, 1000, 820):
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
        requests, console = browser.open(url)
        assert requests == [url], f"{file}: it asked for {requests}"
        assert console == [], f"{file}: {console}"
        fits(browser, file, width)
        if width == 1000:
            picture = browser.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            (folder / f"{file.stem}.png").write_bytes(base64.b64decode(picture["data"]))
    charts = browser.value("[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().height)")
    assert all(height > 50 for height in charts), f"{file}: charts with the heights {charts}"
    assert browser.value("document.scripts.length") == 0
    text = browser.value("document.body.innerText")
    assert "Verified." in text and browser.value("document.querySelectorAll('h1').length") == 1, text[:500]
    # The width of A4 without its margins.
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.call("Emulation.setDeviceMetricsOverride", width=687, height=1000, deviceScaleFactor=1, mobile=False)
    fits(browser, file, "paper")
    browser.call("Emulation.setEmulatedMedia", media="")
    browser.call("Emulation.clearDeviceMetricsOverride")
    pdf = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
    (folder / f"{file.stem}.pdf").write_bytes(pdf)
    pages = pdf.count(b"/Type /Page") - pdf.count(b"/Type /Pages")
    assert pages >= 1 and b"/MediaBox [0 0 594" in pdf.replace(b"595.", b"594."), f"{file}: {pages} pages, not on A4"
    print(f"{file.name}: {len(charts)} charts, {pages} pages of A4, no script, no request, no message")


def sees_violations(browser, folder, file):
    """The same checks must fail for a file with a script and an image: the policy of the report refuses both, and the console says so."""
    evil = "<script>document.title = 'run'</script><img src='https://evil.example/x.png'/>"
    changed = folder / "violating.html"
    changed.write_text(file.read_text(encoding="utf-8").replace("<body>", f"<body>{evil}", 1), encoding="utf-8")
    _, console = browser.open(changed.resolve().as_uri())
    told = "\n".join(console)
    assert "script" in told and "evil.example" in told, f"the check sees no violation: {console}"
    assert browser.value("document.title") != "run", "the policy let a script run"
    changed.unlink()
    print("a script and an image from elsewhere are refused by the policy of the report, and seen")


def main():
    folder, files = pathlib.Path(sys.argv[1]), [pathlib.Path(name) for name in sys.argv[2:]]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            for file in files:
                check(browser, folder, file)
            sees_violations(browser, folder, files[0])
        finally:
            browser.end()


main()
