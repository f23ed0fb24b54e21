"""Installs the chart with a set of values into a namespace with the restricted Pod Security Standard, and looks what the API server and the controllers made of it.

    installs.py SET      such as `sqlite`, for deploy/helm/canton-keyvault/ci/sqlite-values.yaml
"""

import copy
import json
import sys

import yaml

from api import CHART, NAME, RELEASE, call, exists, fail, get, helm, kubectl, make_namespace, pods, ready, refused, template, unready, until, values

# What another tool manages, for the set that says so.
BEFORE = {
    "pod-identity": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "canton-keyvault"}},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "keyvault-data"},
            "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "10Gi"}}},
        },
    ]
}
# What no pod may have in such a namespace.
FORBIDDEN = {
    "restricted volume types": lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    "host namespaces": lambda spec: spec.update(hostNetwork=True),
    "allowPrivilegeEscalation != false": lambda spec: spec["containers"][0]["securityContext"].update(allowPrivilegeEscalation=True),
    "runAsNonRoot != true": lambda spec: spec["securityContext"].update(runAsNonRoot=False),
    "seccompProfile": lambda spec: spec["securityContext"].pop("seccompProfile"),
    "unrestricted capabilities": lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"),
}


def missing(rendered, live, path=""):
    """What the chart renders and the API server did not keep. It adds defaults, and drops what is empty."""
    if isinstance(rendered, dict):
        for name, value in rendered.items():
            if value not in (None, {}, [], ""):
                yield from missing(value, live.get(name) if isinstance(live, dict) else None, f"{path}.{name}")
    elif isinstance(rendered, list):
        for number, value in enumerate(rendered):
            yield from missing(value, live[number] if isinstance(live, list) and number < len(live) else None, f"{path}[{number}]")
    elif rendered != live:
        yield f"{path}: {rendered!r} became {live!r}"


def accepted(namespace, documents):
    """Each field is in the schema of the API server; one that is not is refused."""
    text = yaml.safe_dump_all(documents)
    strict = ["kubectl", "create", "--dry-run=server", "--validate=strict", "--filename", "-"]
    code, _, said = call(*strict, stdin=text)
    if code != 0 or "arning" in said:
        fail(f"the API server does not accept what the chart renders: {said}")
    refused("unknown field", *strict, stdin=text.replace("serviceName: ", "serviceNames: "))
    # A field that Pod Security forbids in the template: the API server warns, and would create no pod.
    wrong = copy.deepcopy([document for document in documents if document["kind"] == "StatefulSet"])
    FORBIDDEN["restricted volume types"](wrong[0]["spec"]["template"]["spec"])
    if "would violate PodSecurity" not in call(*strict, stdin=yaml.safe_dump_all(wrong))[2]:
        fail("the API server does not warn about a forbidden field")


def kept(documents):
    for document in documents:
        meta = document["metadata"]
        live = get(meta["namespace"], f"{document['kind']}.{group(document)}", meta["name"])
        found = list(missing(document, live))
        if found:
            fail(f"{document['kind']} {meta['name']}: {found}")


def group(document):
    """Kind.version.group, as kubectl wants it."""
    name, _, version = document["apiVersion"].rpartition("/")
    return f"{version}.{name}"


def running(namespace, spec):
    """The controllers made the pods, Pod Security admitted them, the scheduler found machines, and no pod has a token of Kubernetes."""
    names = {f"{NAME}-{number}" for number in range(spec["replicas"])}
    found = pods(namespace)
    if set(found) != names or not all(ready(pod) for pod in found.values()):
        fail(f"{namespace}: the pods are {set(found)}, and must be {names}, ready")
    machines = [pod["spec"]["nodeName"] for pod in found.values()]
    if len(set(machines)) != len(machines):
        fail(f"{namespace}: the pods are on {machines}, and must be spread")
    for pod in found.values():
        text = json.dumps(pod["spec"])
        if "serviceAccountToken" in text or "kubernetes.io/serviceaccount" in text:
            fail(f"{namespace}: a pod has a token of Kubernetes")
        if "ephemeralContainers" in pod["spec"] or pod["spec"]["serviceAccountName"] == "default":
            fail(f"{namespace}: the pod runs as the default ServiceAccount")
    for claim in get(namespace, "persistentvolumeclaims")["items"]:
        if claim["status"]["phase"] != "Bound":
            fail(f"{namespace}: the claim {claim['metadata']['name']} is {claim['status']['phase']}")
    claims = {volume["persistentVolumeClaim"]["claimName"] for pod in found.values() for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume}
    if claims != {claim["metadata"]["name"] for claim in get(namespace, "persistentvolumeclaims")["items"]}:
        fail(f"{namespace}: the pods use the claims {claims}")
    return found


def admission(namespace, pod):
    """The pod of the chart under another name is admitted; with each forbidden field it is refused."""
    spec = {name: value for name, value in pod["spec"].items() if name not in ("nodeName", "hostname", "subdomain", "priority", "preemptionPolicy")}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "another", "namespace": namespace}, "spec": spec}
    create = ["kubectl", "create", "--dry-run=server", "--filename", "-"]
    kubectl(*create[1:], stdin=json.dumps(document))
    for sentence, change in FORBIDDEN.items():
        wrong = copy.deepcopy(document)
        change(wrong["spec"])
        refused(sentence, *create, stdin=json.dumps(wrong))


def endpoints(namespace, service):
    """The addresses that a service sends calls to."""
    slices = get(namespace, "endpointslices", "--selector", f"kubernetes.io/service-name={service}")["items"]
    return {address for each in slices for end in each.get("endpoints") or [] if end["conditions"].get("ready") for address in end["addresses"]}


def services(namespace, found):
    """The service has the pods that are ready, and the direct one has all. A pod is evicted only while all the others serve, and the only one only while it serves itself."""
    addresses = {pod["status"]["podIP"] for pod in found.values()}
    until(f"{namespace}: both services have the pods", lambda: endpoints(namespace, NAME) == endpoints(namespace, f"{NAME}-direct") == addresses)
    budget = lambda: get(namespace, "poddisruptionbudget", NAME)["status"]  # noqa: E731
    until("the budget knows the pods", lambda: (budget()["currentHealthy"], budget()["disruptionsAllowed"]) == (len(found), 1))
    first, *others = sorted(found)
    unready(namespace, first)
    frozen = found[first]["status"]["podIP"]
    until("a pod that is not ready leaves the service", lambda: endpoints(namespace, NAME) == addresses - {frozen})
    if endpoints(namespace, f"{NAME}-direct") != addresses:
        fail(f"{namespace}: the direct service has not the pod that is not ready")
    until("the budget knows it", lambda: budget()["disruptionsAllowed"] == 0)
    for name in others or [first]:
        refused("disruption budget", *eviction(namespace, name), stdin=evicted(namespace, name))
    if not others:
        unready(namespace, "")
        until("the budget knows that the pod serves", lambda: budget()["disruptionsAllowed"] == 1)
    kubectl(*eviction(namespace, first)[1:], stdin=evicted(namespace, first))
    unready(namespace, "")
    until("the evicted pod is there again", lambda: replaced(namespace, found, first))


def eviction(namespace, pod):
    return ["kubectl", "create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", "--filename", "-"]


def evicted(namespace, pod):
    return json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}})


def replaced(namespace, before, name):
    now = pods(namespace)
    return set(now) == set(before) and now[name]["metadata"]["uid"] != before[name]["metadata"]["uid"] and all(ready(pod) for pod in now.values())


def rights(namespace, account):
    """The ServiceAccount of the vault may do what each one may, and no more; and the question is the right one: with a role the answer is another one."""
    who, anyone = f"--as=system:serviceaccount:{namespace}:{account}", "--as=system:serviceaccount:alpha:default"

    def allowed(user, where):
        return set(kubectl("auth", "can-i", "--list", "--namespace", where, "--no-headers", user).splitlines())

    for where in (namespace, "splice", "kube-system"):
        if allowed(who, where) != allowed(anyone, where):
            fail(f"{account} may, in {where}: {allowed(who, where) - allowed(anyone, where)}")
        for verb in ("get", "list", "watch"):
            refused("", "kubectl", "auth", "can-i", verb, "secrets", "--namespace", where, who)
    if get(namespace, "secrets", "--field-selector", "type=kubernetes.io/service-account-token")["items"]:
        fail(f"{namespace}: there is a secret with a token of Kubernetes")
    kubectl("create", "role", "reader", "--namespace", namespace, "--verb=get", "--resource=secrets")
    kubectl("create", "rolebinding", "reader", "--namespace", namespace, "--role=reader", f"--serviceaccount={namespace}:{account}")
    until("a role is seen", lambda: [line.split()[0] for line in allowed(who, namespace) - allowed(anyone, namespace)] == ["secrets"], 30)


def main(name):
    namespace = name
    make_namespace(namespace)
    for document in BEFORE.get(name, []):
        kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(document))
    documents = template(namespace, "--values", values(name))
    accepted(namespace, documents)
    helm("install", namespace, RELEASE, CHART, "--values", values(name), "--wait", "--timeout", "2m")
    kept(documents)
    spec = next(document["spec"] for document in documents if document["kind"] == "StatefulSet")
    found = running(namespace, spec)
    admission(namespace, found[f"{NAME}-0"])
    services(namespace, found)
    account = found[f"{NAME}-0"]["spec"]["serviceAccountName"]
    if name == "sqlite":
        rights(namespace, account)
    helm("uninstall", namespace, RELEASE, "--wait")
    until("the pods end", lambda: not pods(namespace))
    for document in documents:
        if exists(document["metadata"]["namespace"], f"{document['kind']}.{group(document)}", document["metadata"]["name"]):
            fail(f"{document['kind']} {document['metadata']['name']} stays")
    print(f"{name}: {len(documents)} objects, {len(found)} pods as {account}")


main(sys.argv[1])
