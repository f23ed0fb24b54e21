"""Does what kubelets do as far as the rest of Kubernetes sees it: a pod that has a machine runs and is ready, one that is deleted ends. No container runs.

The annotation `tests/unready` of a namespace names the pods that are not ready: by name, by image, or `*` for all. Runs until it is killed.
"""

import datetime
import json
import os
import ssl
import time
import urllib.error
import urllib.request

import yaml

from api import UNREADY

with open(os.environ["KUBECONFIG"]) as file:
    CONFIG = yaml.safe_load(file)
SERVER = CONFIG["clusters"][0]["cluster"]
TOKEN = CONFIG["users"][0]["user"]["token"]
TLS = ssl.create_default_context(cafile=SERVER["certificate-authority"])
addresses = {}


def ask(method, path, body=None, kind="application/json"):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
    request = urllib.request.Request(SERVER["server"] + path, json.dumps(body).encode() if body else None, headers, method=method)
    with urllib.request.urlopen(request, timeout=30, context=TLS) as answer:
        return json.load(answer)


def status(pod, is_ready):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    uid = pod["metadata"]["uid"]
    number = addresses.setdefault(uid, len(addresses) + 1)
    address = f"10.1.{number // 250}.{number % 250 + 1}"
    word = {True: "True", False: "False"}
    conditions = [
        {"type": kind, "status": word[is_ready or kind not in ("Ready", "ContainersReady")], "lastTransitionTime": now}
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
    ]
    containers = [
        {"name": each["name"], "image": each["image"], "imageID": "", "ready": is_ready, "restartCount": 0, "started": True, "state": {"running": {"startedAt": now}}}
        for each in pod["spec"]["containers"]
    ]
    return {"phase": "Running", "startTime": now, "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions, "containerStatuses": containers}


def is_ready(pod):
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))


def step():
    unready = {each["metadata"]["name"]: each["metadata"].get("annotations", {}).get(UNREADY, "").split(",") for each in ask("GET", "/api/v1/namespaces")["items"]}
    for pod in ask("GET", "/api/v1/pods")["items"]:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        if not pod["spec"].get("nodeName"):
            continue
        wanted = not {name, "*", *(each["image"] for each in pod["spec"]["containers"])} & set(unready.get(namespace, []))
        try:
            if "deletionTimestamp" in pod["metadata"]:
                ask("DELETE", path, {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}})
            elif pod["status"].get("phase") != "Running" or is_ready(pod) != wanted:
                ask("PATCH", f"{path}/status", {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status(pod, wanted)}, "application/strategic-merge-patch+json")
        except urllib.error.HTTPError as error:
            # Another one was faster: the next step sees what is there.
            if error.code not in (404, 409):
                print(f"{path}: {error.code} {error.read().decode()}", flush=True)


while True:
    try:
        step()
    except OSError as error:
        print(error, flush=True)
    time.sleep(0.2)
