"""The programs that a user of Kubernetes has, kubectl and helm, as functions; and waiting for a condition. A warning of the API server is a failure."""

import json
import pathlib
import subprocess
import sys
import time

import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/canton-keyvault"
RELEASE = "vault"
NAME = "vault-canton-keyvault"
# The annotation of a namespace with the pods that are not ready: nodes.py reads it, in place of the readiness probe.
UNREADY = "tests/unready"


def fail(why):
    sys.exit(why)


def call(*command, stdin=None):
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "found symbolic link" not in line]
    return done.returncode, done.stdout, "\n".join(said)


def succeeds(*command, stdin=None):
    code, out, said = call(*command, stdin=stdin)
    if code != 0 or "warning" in said.lower():
        fail(f"{' '.join(str(word) for word in command)}: {code}: {said}")
    return out


def refused(sentence, *command, stdin=None):
    """The command must fail and say the sentence."""
    code, out, said = call(*command, stdin=stdin)
    if code == 0 or sentence not in said:
        fail(f"{' '.join(str(word) for word in command)}: must be refused with “{sentence}”, and ended with {code}: {out} {said}")


def kubectl(*words, stdin=None):
    return succeeds("kubectl", *words, stdin=stdin)


def get(namespace, *words):
    return json.loads(kubectl("get", "--namespace", namespace, "--output", "json", *words))


def exists(namespace, kind, name):
    return bool(kubectl("get", "--namespace", namespace, "--ignore-not-found", "--output", "name", kind, name))


def helm(verb, namespace, *words):
    return succeeds("helm", verb, "--namespace", namespace, *words)


def values(of):
    return CHART / f"ci/{of}-values.yaml"


def template(namespace, *words):
    """What the chart renders for this cluster, as documents."""
    text = helm("template", namespace, RELEASE, CHART, "--validate", *words)
    return [document for document in yaml.safe_load_all(text) if document]


def until(what, holds, seconds=120):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            fail(f"{what}: not within {seconds} s")
        time.sleep(0.2)


def make_namespace(name):
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl("create", "--filename", "-", stdin=json.dumps(document))
    until(f"the ServiceAccount of {name}", lambda: exists(name, "serviceaccount", "default"))


def unready(namespace, pods):
    """Which pods of the namespace are not ready: names or images with commas, `*` for all, or none."""
    kubectl("annotate", "namespace", namespace, "--overwrite", f"{UNREADY}={pods}")


def pods(namespace):
    found = get(namespace, "pods", "--selector", f"app.kubernetes.io/instance={RELEASE}")["items"]
    return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}


def ready(pod):
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod.get("status", {}).get("conditions", []))
