"""Opens reports in Chromium without network and fails if one is not as it must be.

A report must load nothing but itself, run nothing, violate no policy, fit the width of the window, and print. A second file with a script and an image
from elsewhere shows that this check would see them.

    check.py FOLDER FILE...      writes FILE.png and FILE.pdf into FOLDER
"""

import base64
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "browser"))
from chromium import Browser


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
            browser.picture(folder / f"{file.stem}.png")
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
