"""Opens every page of `canton-keyvault ui` in Chromium without network and fails if one is not as it must be.

A page must load only from its own server, violate no policy, print nothing on the console, have one headline, labels for its fields and names for its tables,
fit the window in light and dark, and be usable by keyboard. Only /docs has a script. A file with a script and an image from elsewhere shows that this check
would see them.

    check.py FOLDER READER.json KEY_ADMIN.json WRAPPER_ADMIN.json IDS.json [--pictures FOLDER]      writes a picture of each page into FOLDER
"""

import json
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "browser"))
from chromium import Browser

# The pictures of the guide, and the most bytes of one.
GUIDE = ["health", "keys", "key", "job", "audit", "charts", "access", "confirm", "docs"]
MOST_BYTES = 100_000

ACCESSIBLE = """(() => {
  const wrong = [];
  if (document.querySelectorAll('h1').length !== 1) wrong.push('not one h1');
  if (document.documentElement.lang !== 'en') wrong.push('no language');
  for (const field of document.querySelectorAll('input:not([type=hidden]), select, progress'))
    if (!field.labels || field.labels.length !== 1) wrong.push('no label: ' + field.outerHTML);
  for (const table of document.querySelectorAll('table')) {
    if (!table.caption) wrong.push('no caption: ' + table.outerHTML.slice(0, 99));
    if (!table.querySelector('th[scope]')) wrong.push('no headers: ' + table.outerHTML.slice(0, 99));
  }
  for (const part of document.querySelectorAll('[aria-labelledby]'))
    for (const id of part.getAttribute('aria-labelledby').split(' ')) if (!document.getElementById(id)) wrong.push('no ' + id);
  const ids = [...document.querySelectorAll('[id]')].map(part => part.id);
  for (const id of ids) if (ids.filter(other => other === id).length > 1) wrong.push('twice: ' + id);
  return wrong;
})()"""

# The contrast of the text and the ground of the body, as WCAG 2 computes it.
CONTRAST = """(() => {
  const parts = color => color.match(/[0-9.]+/g).slice(0, 3).map(part => part / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = color => { const [r, g, b] = parts(color); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  const least = selector => Math.min(21, ...[...document.querySelectorAll(selector)].map(part => light(getComputedStyle(part).color))
    .map(text => (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05)));
  return least('body, h1, main p, main a, td, caption, label');
})()"""


class Pages:
    def __init__(self, browser, folder, first):
        self.browser, self.folder = browser, folder
        self.origin = first.split("/login")[0]
        _, console = browser.open(first)
        assert console == [] and browser.value("location.pathname + location.search") == "/", f"{console}: the token stays in the address"

    def open(self, path, scripts=0):
        """Loads a page, and checks what holds for every one."""
        url = self.origin + path
        requests, console = self.browser.open(url)
        foreign = [request for request in requests if not request.startswith(self.origin + "/")]
        assert foreign == [], f"{path}: it asked for {foreign}"
        assert console == [], f"{path}: {console}"
        assert self.browser.value("document.scripts.length") == scripts, f"{path}: scripts"
        assert self.browser.value("document.title") != "run", f"{path}: a hostile text ran"
        assert self.browser.value("document.querySelectorAll('[style], style, iframe, img').length") == 0, f"{path}: styles or images"
        wrong = self.browser.value(ACCESSIBLE)
        assert wrong == [], f"{path}: {wrong}"
        return self.browser.value("document.body.innerText")

    def check(self, name, path, *expected, scripts=0, height=680):
        text = self.open(path, scripts)
        for part in expected:
            assert part in text, f"{path}: no {part!r} in {text}"
        for scheme in ("dark", "light"):
            self.browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            for width in (1280, 700, 1000):
                self.browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
                wide = self.browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wide <= 0, f"{path}: {wide} pixels do not fit the width {width}"
            contrast = self.browser.value(CONTRAST)
            assert contrast >= 4.5, f"{path}: the contrast in {scheme} is {contrast}"
            self.browser.picture(self.folder / f"{name}-{scheme}.png", beyond=False)
        charts = self.browser.value("[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().height)")
        assert all(height > 50 for height in charts), f"{path}: charts with the heights {charts}"
        print(f"{path}: {len(charts)} charts, no other server, no message")

    def focus(self, tag):
        """Presses the tab key until an element of this kind has the focus."""
        for _ in range(60):
            if self.browser.value(f"document.activeElement.tagName === '{tag}'"):
                return
            self.browser.press("Tab")
        raise AssertionError(f"no {tag} can be reached by the tab key")

    def press(self, tag, text):
        """Reaches an element by the tab key, and presses Enter."""
        self.focus(tag)
        found = self.browser.value("document.activeElement.textContent")
        assert found == text, f"the tab key leads to {found!r}, not to {text!r}"
        self.browser.press("Enter", "\r")


def reading(browser, folder, first, ids):
    pages = Pages(browser, folder, first)
    key, job = ids["key"], ids["job"]
    of = lambda operation, principal: f"/access?operation={operation}&key_id={key}&principal=spiffe%3A%2F%2Fdev.keyvault%2F{principal}"
    pages.check("health", "/", "The vault is ready.", "spiffe://dev.keyvault/auditor")
    pages.check("keys", "/keys", "orders", '"><img src=https://evil.example/x onerror=document.title="run">')
    pages.check("key", f"/keys/{key}", "Wraps of its data key", "orders")
    pages.check("hostile", f"/keys/{ids['hostile']}", "onerror=document.title")
    pages.check("wrapper-keys", "/wrapper-keys", "draining", "active")
    pages.check("wrapper-key", f"/wrapper-keys/{ids['wrapper_key']}", "What the KMS reports now")
    pages.check("jobs", "/jobs", job, "succeeded")
    pages.check("job", f"/jobs/rotations/{job}", "keys done")
    pages.check("audit", "/audit", "keys.sign", "denied")
    pages.check("entry", "/audit/3", "policy_revision")
    pages.check("charts", "/audit/charts", "Calls per day by outcome", "Calls by principal", height=980)
    pages.check("access", of("keys.sign", "participant2"), "No: the policy does not permit it.")
    pages.check("history", f"/access?key={key}&at=2999-01-01", "Who was allowed to use it", "spiffe://dev.keyvault/participant1")
    assert browser.value("document.querySelectorAll('form[method=post]').length") == 0
    docs(browser, pages)


def docs(browser, pages):
    """The search shows what fits, at once with the script, and links lead into parts that were hidden."""
    pages.check("docs", "/docs", "/v1/keys/{id}/sign", scripts=1, height=620)
    pages.check("errors", "/docs/errors", "wrapper_unavailable")
    pages.open("/docs", 1)
    shown = "[...document.querySelectorAll('details[data-search]')].filter(part => part.checkVisibility()).length"
    every = browser.value(shown)
    browser.value("(() => { const field = document.getElementById('search'); field.focus(); })()")
    for letter in "sign-batch":
        browser.call("Input.dispatchKeyEvent", type="char", text=letter)
    few = browser.value(shown)
    assert 0 < few < every / 4, f"the search shows {few} of {every}"
    assert browser.value("document.getElementById('found').textContent") == f"{few} found"
    browser.value("void (location.hash = '#schema-Key')")
    browser.wait_for("document.getElementById('schema-Key').checkVisibility()")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    pages.open("/docs?q=sign-batch", 1)
    assert browser.value(shown) == few, "the search without a script shows something else"
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    print(f"/docs: the search shows {few} of {every}, with a script and without")


def changing(browser, folder, first, ids):
    """A change by keyboard alone: from the page of a key to the confirmation, and back with the result."""
    pages = Pages(browser, folder, first)
    key = ids["key"]
    pages.check("changes", f"/keys/{key}", "Changes", "Disable…")
    pages.check("confirm", f"/actions/delete-key?id={key}&days=30", "Write yes:", "destroys it in 30 days", height=720)
    pages.open(f"/actions/disable-key?id={key}")
    pages.press("BUTTON", "Disable")
    browser.wait_for("document.body && document.body.innerText.includes('The key is disabled.')")
    print("a key was disabled by keyboard")


def renaming(browser, folder, first, ids):
    """A wrapper key gets a name by keyboard alone: from its page over the form to the confirmation, and back with the result."""
    pages = Pages(browser, folder, first)
    wrapper_key = ids["wrapper_key"]
    pages.check("wrapper-key-changes", f"/wrapper-keys/{wrapper_key}", "Changes", "Rename…")
    pages.check("wrapper-key-name", f"/actions/rename-wrapper-key?id={wrapper_key}", "New name (none, if empty)", "Nothing is changed yet.")
    pages.focus("INPUT")
    for letter in "central-2026":
        browser.call("Input.dispatchKeyEvent", type="char", text=letter)
    pages.press("BUTTON", "Continue")
    browser.wait_for("document.body && document.body.innerText.includes('the name central-2026?')")
    address = browser.value("location.pathname + location.search")
    pages.check("confirm-name", address, f"Give the wrapper key {wrapper_key} the name central-2026?", "As it is now")
    pages.press("BUTTON", "Rename")
    browser.wait_for("document.body && document.body.innerText.includes('The name was changed.')")
    pages.check("renamed", f"/wrapper-keys/{wrapper_key}", "central-2026")
    print("a wrapper key was renamed by keyboard")


def sees_violations(browser, folder):
    """The same observation must see a script and an image from elsewhere, and the policy must refuse them."""
    policy = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'none'"
    evil = "<script>document.title = 'run'</script><img src='https://evil.example/x.png'/>"
    file = folder / "violating.html"
    file.write_text(f"<!doctype html><meta http-equiv='Content-Security-Policy' content=\"{policy}\"><title>t</title>{evil}", encoding="utf-8")
    _, console = browser.open(file.resolve().as_uri())
    told = "\n".join(console)
    assert "script" in told and "evil.example" in told, f"the check sees no violation: {console}"
    assert browser.value("document.title") != "run", "the policy let a script run"
    file.unlink()


def renew(folder, guide):
    guide.mkdir(parents=True, exist_ok=True)
    for name in GUIDE:
        picture = folder / f"{name}-light.png"
        size = picture.stat().st_size
        assert size <= MOST_BYTES, f"{picture}: {size} bytes are more than {MOST_BYTES}"
        shutil.copyfile(picture, guide / f"{name}.png")
    dark = folder / "health-dark.png"
    shutil.copyfile(dark, guide / "health-dark.png")


def main():
    folder = pathlib.Path(sys.argv[1])
    reader, key_admin, wrapper_admin, ids = [json.loads(pathlib.Path(name).read_text(encoding="utf-8")) for name in sys.argv[2:6]]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            reading(browser, folder, reader["url"], ids)
            changing(browser, folder, key_admin["url"], ids)
            renaming(browser, folder, wrapper_admin["url"], ids)
            sees_violations(browser, folder)
        finally:
            browser.end()
    if sys.argv[6:7] == ["--pictures"]:
        renew(folder, pathlib.Path(sys.argv[7]))


main()
