"""Checks an OCI image layout in a tar file, digest by digest, and unpacks its one layer: image.py ARCHIVE FOLDER"""

import gzip
import hashlib
import json
import os
import sys
import tarfile

archive, folder = sys.argv[1:]
with tarfile.open(archive) as tar:
    files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}


def blob(described: dict) -> bytes:
    """The content that a descriptor names."""
    algorithm, digest = described["digest"].split(":")
    content = files[f"blobs/{algorithm}/{digest}"]
    assert hashlib.new(algorithm, content).hexdigest() == digest and len(content) == described["size"], described
    return content


assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
[described] = json.loads(files["index.json"])["manifests"]
manifest = json.loads(blob(described))
config = json.loads(blob(manifest["config"]))
[layer] = manifest["layers"]
unpacked = gzip.decompress(blob(layer))
assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(unpacked).hexdigest()}"]
assert config["config"]["User"] == "65532:65532" and config["os"] == "linux"
assert len(files) == 5, sorted(files)

os.mkdir(folder)
layer_file = folder + ".tar"
with open(layer_file, "wb") as out:
    out.write(unpacked)
with tarfile.open(layer_file) as tar:
    members = tar.getmembers()
    tar.extractall(folder, filter="fully_trusted")
os.chmod(folder, 0o755)
for member in members:
    writable = member.mode & 0o022 and not (member.isdir() and member.mode & 0o1000)
    assert not writable and not member.mode & 0o6000, f"{member.name} can be written by others, or runs as another user"
    assert (member.uid, member.gid) == ((65532, 65532) if member.name == "var/lib/canton-keyvault" else (0, 0)), member.name
programs = [member.name for member in members if member.isfile() and member.mode & 0o111 and "/lib" not in "/" + member.name]
assert programs == ["usr/bin/canton-keyvault"], programs
