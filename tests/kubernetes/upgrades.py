"""Upgrades, rolls back, uninstalls and installs again, as the README of the chart says, and looks which pods restart and what stays.

    upgrades.py sqlite | postgresql
"""

import json
import sys

from api import CHART, NAME, RELEASE, exists, fail, get, helm, kubectl, make_namespace, pods, ready, refused, succeeds, unready, until, values

CLAIM = f"data-{NAME}-0"
WAIT = ["--wait", "--timeout", "2m"]


def upgrade(namespace, of, *settings):
    words = [word for setting in settings for word in ("--set", setting)]
    return ["helm", "upgrade", "--namespace", namespace, RELEASE, CHART, "--values", values(of), *words]


def configuration(namespace):
    return get(namespace, "configmap", NAME)["data"]["keyvault.toml"]


def uids(namespace):
    return {name: pod["metadata"]["uid"] for name, pod in pods(namespace).items()}


def images(namespace):
    return {pod["spec"]["containers"][0]["image"] for pod in pods(namespace).values()}


def settled(namespace, replicas):
    """All pods are ready, and have been for as long as the chart says."""
    found, state = pods(namespace), get(namespace, "statefulset", NAME)
    done = state["status"]["observedGeneration"] == state["metadata"]["generation"] and state["status"].get("availableReplicas") == replicas
    return done and len(found) == replicas and all(ready(pod) for pod in found.values())


def rolls(namespace, replicas, *command):
    """The command replaces each pod under its name, one after the other."""
    until("the pods are available", lambda: settled(namespace, replicas))
    before = uids(namespace)
    succeeds(*command)

    def replaced():
        found = pods(namespace)
        if sum(map(ready, found.values())) < replicas - 1:
            fail(f"more than one pod is away: {[name for name, pod in found.items() if ready(pod)]} are ready")
        return set(found) == set(before) and not set(before.values()) & set(uids(namespace).values()) and settled(namespace, replicas)

    until(f"{' '.join(command[:2])} replaces each pod", replaced)


def changes(namespace, of, replicas):
    """Grants, nodes and tls restart no pod; the rest of the configuration and the image do; a rollback brings back both."""
    before, first, image = configuration(namespace), uids(namespace), images(namespace)
    succeeds(*upgrade(namespace, of, "validators.splice.enabled=false"), *WAIT)
    if uids(namespace) != first or configuration(namespace) == before:
        fail("the switch of a validator must change the configuration, and restart no pod")
    rolls(namespace, replicas, *upgrade(namespace, of, "config.limits.concurrent=128"))
    if "concurrent = 128" not in configuration(namespace):
        fail("an upgrade must change the configuration")
    rolls(namespace, replicas, *upgrade(namespace, of, "image.tag=9.9.9"))
    if images(namespace) != {"canton-keyvault:9.9.9"}:
        fail(f"an upgrade must change the image of each pod: {images(namespace)}")
    rolls(namespace, replicas, "helm", "rollback", "--namespace", namespace, RELEASE, "1")
    if images(namespace) != image or configuration(namespace) != before:
        fail("the rollback must bring back the image and the configuration")


def broken(namespace, of, replicas):
    """A version that is never ready: the upgrade stops at the first pod, and a rollback alone repairs it."""
    image, before, last = images(namespace), uids(namespace), f"{NAME}-{replicas - 1}"
    unready(namespace, "canton-keyvault:broken")
    succeeds(*upgrade(namespace, of, "image.tag=broken"))
    until("the last pod has the broken image", lambda: last in uids(namespace) and "canton-keyvault:broken" in images(namespace))
    rollout = ["kubectl", "rollout", "status", f"statefulset/{NAME}", "--namespace", namespace, "--timeout", "8s"]
    refused("", *rollout)
    if any(uids(namespace).get(name) != uid for name, uid in before.items() if name != last):
        fail("an upgrade must not go on while the new pod is not ready")
    helm("rollback", namespace, RELEASE)
    until("the rollback replaces the broken pod", lambda: images(namespace) == image and settled(namespace, replicas))
    if any(uids(namespace)[name] != uid for name, uid in before.items() if name != last):
        fail("a rollback must not restart the pods that were not upgraded")
    unready(namespace, "")


def volume(namespace):
    return get(namespace, "persistentvolumeclaim", CLAIM)["spec"]["volumeName"]


def larger(namespace):
    """What Kubernetes does not change, and the way that the README names."""
    before = uids(namespace)
    refused("spec.volumeClaimTemplates", *upgrade(namespace, "sqlite", "persistence.size=20Gi"))
    kubectl("patch", "persistentvolumeclaim", CLAIM, "--namespace", namespace, "--patch", json.dumps({"spec": {"resources": {"requests": {"storage": "20Gi"}}}}))
    kubectl("delete", "statefulset", NAME, "--namespace", namespace, "--cascade=orphan")
    succeeds(*upgrade(namespace, "sqlite", "persistence.size=20Gi"), *WAIT)
    if uids(namespace) != before:
        fail("a larger volume must restart no pod")


def to_postgresql(namespace):
    """The steps of the README."""
    held = volume(namespace)
    kubectl("scale", "statefulset", NAME, "--namespace", namespace, "--replicas", "0")
    until("the pod ends", lambda: not pods(namespace))
    refused("spec.volumeClaimTemplates", *upgrade(namespace, "postgresql"))
    kubectl("delete", "statefulset", NAME, "--namespace", namespace, "--cascade=orphan")
    succeeds(*upgrade(namespace, "postgresql"), *WAIT)
    until("three replicas run", lambda: settled(namespace, 3))
    if volume(namespace) != held:
        fail("the volume must stay")


def sqlite(namespace):
    install = ["helm", "install", "--namespace", namespace, RELEASE, CHART, "--values", values("sqlite"), *WAIT]
    succeeds(*install)
    changes(namespace, "sqlite", 1)
    broken(namespace, "sqlite", 1)
    held = volume(namespace)
    helm("uninstall", namespace, RELEASE, "--wait")
    until("the pod ends", lambda: not pods(namespace))
    if volume(namespace) != held or exists(namespace, "statefulset", NAME) or exists(namespace, "serviceaccount", NAME):
        fail("the claim must stay after an uninstall, and nothing else")
    succeeds(*install)
    if volume(namespace) != held or not settled(namespace, 1):
        fail("a new release must have the volume of the old one")
    larger(namespace)
    to_postgresql(namespace)


def postgresql(namespace):
    succeeds("helm", "install", "--namespace", namespace, RELEASE, CHART, "--values", values("postgresql"), *WAIT)
    changes(namespace, "postgresql", 3)
    broken(namespace, "postgresql", 3)
    before = uids(namespace)
    for replicas in (2, 4):
        succeeds(*upgrade(namespace, "postgresql", f"replicas={replicas}"), *WAIT)
        until(f"there are {replicas} replicas", lambda number=replicas: settled(namespace, number))
    if any(uids(namespace)[f"{NAME}-{number}"] != before[f"{NAME}-{number}"] for number in range(2)):
        fail("another number of replicas must restart none that stays")
    # A frozen vault: none is ready, and none serves, so that Kubernetes 1.37 replaces all of them at once.
    unready(namespace, "*")
    until("none is ready", lambda: not any(map(ready, pods(namespace).values())))
    frozen = set(uids(namespace).values())
    succeeds(*upgrade(namespace, "postgresql", "replicas=4", "image.tag=9.9.9"))
    until("all are replaced", lambda: len(uids(namespace)) == 4 and not frozen & set(uids(namespace).values()))
    unready(namespace, "")
    until("all are ready", lambda: settled(namespace, 4))
    helm("uninstall", namespace, RELEASE, "--wait")


def main(of):
    namespace = f"upgrade-{of}"
    make_namespace(namespace)
    {"sqlite": sqlite, "postgresql": postgresql}[of](namespace)
    print(f"{of}: upgrades, rollbacks, replicas, uninstall")


main(sys.argv[1])
