#!/usr/bin/env python3
"""Every crate of the tree has a licence that Apache-2.0 software may be shipped with. Reads `cargo metadata`; needs no network."""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

# The list is that of cargo-deny, so that there is one.
DENY = pathlib.Path(__file__).parent.parent / "deny.toml"
ALLOWED = set(tomllib.loads(DENY.read_text())["licenses"]["allow"])

# Crates whose metadata does not say it, and where their licence was read. Empty is best.
EXCEPTIONS: dict[str, str] = {}


def allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met. `/` is the old way to write OR."""
    words = re.findall(r"\(|\)|[A-Za-z0-9.+-]+", expression.replace("/", " OR ").replace(" WITH ", "+WITH+"))
    words = [word.replace("+WITH+", " WITH ") for word in words]

    def either(at: int) -> tuple[bool, int]:
        met, at = both(at)
        while at < len(words) and words[at] == "OR":
            other, at = both(at + 1)
            met = met or other
        return met, at

    def both(at: int) -> tuple[bool, int]:
        met, at = one(at)
        while at < len(words) and words[at] == "AND":
            other, at = one(at + 1)
            met = met and other
        return met, at

    def one(at: int) -> tuple[bool, int]:
        if words[at] == "(":
            met, at = either(at + 1)
            return met, at + 1
        return words[at] in ALLOWED, at + 1

    met, end = either(0)
    return met and end == len(words)


assert allowed("MIT OR Apache-2.0") and allowed("MIT/GPL-3.0") and allowed("(GPL-2.0 OR MIT) AND ISC")
assert allowed("Apache-2.0 WITH LLVM-exception OR X") and not allowed("MIT AND GPL-3.0") and not allowed("AGPL-3.0")

metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--locked", "--all-features", "--format-version", "1"]))
crates = [crate for crate in metadata["packages"] if crate["source"]]
bad = [
    f'{crate["name"]} {crate["version"]}: {crate["license"] or "no licence named"}'
    for crate in crates
    if not (EXCEPTIONS.get(crate["name"]) or (crate["license"] and allowed(crate["license"])))
]
if bad:
    sys.exit("licences that are not in the list of deny.toml:\n  " + "\n  ".join(bad))
print(f"{len(crates)} crates, tests and build included, all under licences of the list")
