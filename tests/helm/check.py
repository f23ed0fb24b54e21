"""Checks of the Helm chart that need no cluster.

    check.py readme [--write]            the tables of README.md are those of values.schema.json, and every value has a description
    check.py local FOLDER                makes the references in schemas of Kubernetes lead to files, and not to kubernetes.io
    check.py schemas FOLDER CRD...       writes JSON schemas of custom resources for kubeconform
    check.py copies RENDERED             alerts and dashboard of a rendered chart are those of deploy/
    check.py pod RENDERED                the pod meets the restricted standard, and each volume and probe has what it names
    check.py settings BINARY DEV RENDERED...
                                         the vault accepts the rendered configuration, certificates and grants
    check.py identity IRSA POD           who the pod is for AWS: the ServiceAccounts of both ways, rendered
    check.py run BINARY DEV RENDERED OFF MORE
                                         starts the vault with the rendered command, configuration and files, and asks its probes.
                                         DEV is a folder of `dev`; OFF is the same chart with the validator switched off, MORE with a second one
    check.py replicas BINARY DEV RENDERED
                                         starts two pods of a rendered chart over a PostgreSQL server; kills and restarts one
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/canton-keyvault"
MARK = "tests/helm/check.py readme --write -->\n"
UID = 65532


def fail(why):
    sys.exit(why)


def documents(path):
    return [document for document in yaml.safe_load_all(pathlib.Path(path).read_text()) if document]


def one(rendered, kind, ending=""):
    found = [d for d in documents(rendered) if d["kind"] == kind and d["metadata"]["name"].endswith(ending)]
    return found[0] if found else fail(f"{rendered} has no {kind} …{ending}")


def rows(schema, defaults, path=""):
    for name, option in schema["properties"].items():
        full = f"{path}{name}"
        if not option.get("description"):
            fail(f"values.schema.json does not describe {full}")
        default = defaults.get(name) if isinstance(defaults, dict) else None
        nested = option
        if option["type"] == "array":
            nested, full = option.get("items", {}), f"{full}[]" if option.get("items", {}).get("properties") else full
        elif isinstance(option.get("additionalProperties"), dict) and option["additionalProperties"].get("properties"):
            nested, full = option["additionalProperties"], f"{full}.<name>"
        if nested.get("properties"):
            yield full, option, None
            yield from rows(nested, default if nested is option else {}, f"{full}.")
        else:
            yield full, option, default


def readme(write=False):
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    missing = set(defaults) - set(schema["properties"])
    if missing or set(schema["properties"]) - set(defaults) - {"global"}:
        fail(f"values.yaml and values.schema.json have different values: {missing or set(schema['properties']) - set(defaults)}")
    table = "\n| value | type | default | meaning |\n|---|---|---|---|\n"
    for name, option, default in rows(schema, defaults):
        shown = "" if default is None or default in ("", {}, []) else f"`{json.dumps(default) if not isinstance(default, str) else default}`"
        kind = option["type"] if isinstance(option["type"], str) else " or ".join(option["type"])
        words = f" One of {', '.join(f'`{word}`' for word in option['enum'])}." if "enum" in option else ""
        table += f"| `{name}` | {kind} | {shown} | {option['description']}{words} |\n"
    page = (CHART / "README.md").read_text()
    wanted = page.partition(MARK)[0] + MARK + table
    if write:
        (CHART / "README.md").write_text(wanted)
    elif page != wanted:
        fail("README.md of the chart differs from values.schema.json: python3 tests/helm/check.py readme --write")


def strict(schema):
    """The API server drops unknown fields of custom resources. Here they are faults."""
    if isinstance(schema, dict):
        if schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("type", None)
        for child in schema.values():
            strict(child)
    elif isinstance(schema, list):
        for child in schema:
            strict(child)


def local(folder):
    for path in pathlib.Path(folder).glob("*.json"):
        schema = json.loads(path.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
        schema.pop("$id", None)
        path.write_text(json.dumps(schema))


def schemas(folder, *crds):
    for crd in crds:
        for definition in documents(crd):
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                schema["properties"]["metadata"] = {"type": "object"}
                strict(schema["properties"]["spec"])
                schema["additionalProperties"] = False
                name = f"{spec['names']['kind'].lower()}-{spec['group'].split('.')[0]}-{version['name']}.json"
                (pathlib.Path(folder) / name).write_text(json.dumps(schema))


def copies(rendered):
    rules = one(rendered, "PrometheusRule")["spec"]["groups"]
    base = "https://docs.example.org/keyvault/"
    for group in rules:
        for rule in group["rules"]:
            rule["annotations"]["runbook_url"] = rule["annotations"]["runbook_url"].removeprefix(base)
    if rules != yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]:
        fail("the PrometheusRule is not deploy/prometheus/alerts.yaml")
    dashboard = json.loads(one(rendered, "ConfigMap", "-dashboard")["data"]["keyvault.json"])
    if dashboard != json.loads((ROOT / "deploy/grafana/keyvault.json").read_text()):
        fail("the dashboard is not deploy/grafana/keyvault.json")


def pod(rendered):
    """What `kubectl apply` in a namespace with the restricted Pod Security Standard would refuse, and names that do not fit together."""
    spec = one(rendered, "StatefulSet")["spec"]["template"]["spec"]
    container = spec["containers"][0]
    context, own = spec["securityContext"], container["securityContext"]
    restricted = (
        context["runAsNonRoot"]
        and context["seccompProfile"]["type"] == "RuntimeDefault"
        and own["allowPrivilegeEscalation"] is False
        and own["capabilities"] == {"drop": ["ALL"]}
        and own["readOnlyRootFilesystem"]
        and not any("hostPath" in volume for volume in spec["volumes"])
        and not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    )
    if not restricted:
        fail(f"{rendered}: the pod does not meet the restricted standard")
    volumes = {volume["name"] for volume in spec["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in one(rendered, "StatefulSet")["spec"].get("volumeClaimTemplates", [])}
    for mount in container["volumeMounts"]:
        if mount["name"] not in volumes:
            fail(f"{rendered}: there is no volume {mount['name']}")
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if container[probe]["httpGet"]["port"] not in ports:
            fail(f"{rendered}: {probe} asks a port that the container does not have")


def identity(irsa, pod_identity):
    """The chart makes the ServiceAccount with its role, or uses one that another tool manages; the pod runs as it in both cases."""
    account = one(irsa, "ServiceAccount")
    if not account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith(":role/canton-keyvault"):
        fail("the ServiceAccount has not the role of aws.roleArn")
    if any(document["kind"] == "ServiceAccount" for document in documents(pod_identity)):
        fail("serviceAccount.create=false makes a ServiceAccount")
    for rendered, name in ((irsa, account["metadata"]["name"]), (pod_identity, "canton-keyvault")):
        if one(rendered, "StatefulSet")["spec"]["template"]["spec"]["serviceAccountName"] != name:
            fail(f"{rendered}: the pod does not run as {name}")


class Volume:
    """A folder as Kubernetes makes it: names link to ..data, which links to the contents, so that a change is one rename."""

    def __init__(self, folder, mode):
        self.folder, self.mode, self.count = folder, mode, 0
        folder.mkdir(parents=True)

    def put(self, files):
        self.count += 1
        contents = self.folder / f"..{self.count}"
        contents.mkdir()
        for name, text in files.items():
            (contents / name).write_bytes(text)
            # Not the user of the vault: root owns the files, and fsGroup gives them the group.
            own(contents / name, self.mode, os.geteuid())
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        new = self.folder / "..data_tmp"
        new.symlink_to(contents.name)
        new.rename(self.folder / "..data")


def own(path, mode, user):
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, user, UID)
        path.chmod(mode)


def content(file):
    return file if isinstance(file, bytes) else file.read_bytes()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def secret_of_dev(dev, url, name):
    """What the secrets that the values name have, from a folder of `dev`."""
    if name.endswith("-ca"):
        return {"ca.crt": dev / "pki/ca.pem", "ca.pem": dev / "pki/ca.pem", "ca.crl": dev / "ca.crl", "tls.key": dev / "pki/ca.key"}
    others = {"keyvault-postgresql": {"url": url.encode(), "ca.crt": dev / "pki/ca.pem"}, "keyvault-hsm": {"pin": b"1234"}}
    return others.get(name, {"tls.crt": dev / "pki/server.pem", "tls.key": dev / "pki/server.key", "ca.crt": dev / "pki/ca.pem"})


class Pod:
    """The container of a rendered StatefulSet as a process: paths below one folder, and ports of loopback. `secrets` finds the contents of a secret by its name."""

    def __init__(self, binary, dev, rendered, folder, number=0, url="postgresql://vault:secret@127.0.0.1:1/vault", wrapper=None, secrets=None):
        stateful = one(rendered, "StatefulSet")
        self.name, self.wrapper = f"{stateful['metadata']['name']}-{number}", wrapper
        self.spec = one(rendered, "StatefulSet")["spec"]["template"]["spec"]
        self.container = self.spec["containers"][0]
        self.folder, self.api, self.ops = folder, free_port(), free_port()
        self.binary = folder / "canton-keyvault"
        shutil.copy(binary, self.binary)
        self.binary.chmod(0o755)
        os.environ["TMPDIR"] = str(folder)
        find = secrets or (lambda name: secret_of_dev(dev, url, name))
        self.mounts = {mount["name"]: mount["mountPath"] for mount in self.container["volumeMounts"]}
        self.config, self.secrets = None, {}
        for volume in self.spec["volumes"]:
            place = self.place(self.mounts[volume["name"]])
            if "persistentVolumeClaim" in volume:
                continue
            if "emptyDir" in volume:
                place.mkdir(parents=True)
            elif "secret" in volume:
                secret = volume["secret"]
                here = find(secret["secretName"])
                keys = {item["key"]: item["path"] for item in secret.get("items", [])} or {key: key for key in here}
                self.secrets[secret["secretName"]] = (Volume(place, secret["defaultMode"]), keys)
                self.update(secret["secretName"], here)
            else:
                self.config = Volume(place, volume["configMap"]["defaultMode"])
        self.configure(rendered)
        if "data" in self.mounts:
            data = self.place(self.mounts["data"])
            data.mkdir(parents=True)
            # A new volume: root owns it, and fsGroup may write.
            own(data, 0o2770, os.geteuid())
            shutil.copy(wrapper or dev / "wrapper.key", data / "wrapper.key")
            own(data / "wrapper.key", 0o600, UID)
        self.process = None

    def place(self, path):
        return self.folder / path.lstrip("/")

    def update(self, name, secret):
        """What the kubelet does with a secret that is new, or that has changed."""
        volume, keys = self.secrets[name]
        volume.put({path: content(secret[key]) for key, path in keys.items()})

    def configure(self, rendered):
        """What a change of the ConfigMap does. It takes the paths and the addresses to where this pod is."""
        text = one(rendered, "ConfigMap")["data"]["keyvault.toml"]
        for path in sorted(set(self.mounts.values()), key=len, reverse=True):
            text = text.replace(f'"{path}/', f'"{self.place(path)}/')
        text = text.replace("0.0.0.0:8443", f"127.0.0.1:{self.api}").replace("0.0.0.0:9443", f"127.0.0.1:{self.ops}")
        if self.wrapper:
            # A key in a file instead of the KMS of the values.
            start, end = text.index("[wrapper]"), text.find("\n[", text.index("[wrapper]"))
            local = f'[wrapper]\nprovider = "local"\nreference = "{self.wrapper}"\nallowed = ["{self.wrapper}"]\n'
            text = text[:start] + local + (text[end:] if end > 0 else "")
        self.config.put({"keyvault.toml": text.encode()})

    def environment(self):
        """What the kubelet sets: values, and the name of the pod."""
        pairs = {pair["name"]: pair.get("value", self.name) for pair in self.container.get("env", [])}
        for pair in self.container.get("env", []):
            if "valueFrom" in pair and pair["valueFrom"] != {"fieldRef": {"fieldPath": "metadata.name"}}:
                fail(f"{pair['name']} is not the name of the pod")
        return {**os.environ, **pairs}

    def command(self, arguments):
        arguments = [str(self.place(argument)) if argument.startswith("/etc/") else argument for argument in arguments]
        if os.geteuid() != 0:
            return [self.binary, *arguments]
        context = self.spec["securityContext"]
        user = ["--reuid", str(context["runAsUser"]), "--regid", str(context["runAsGroup"]), "--groups", str(context["fsGroup"])]
        return ["setpriv", *user, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", self.binary, *arguments]

    def start(self):
        if self.container["command"] != ["/usr/bin/canton-keyvault"]:
            fail("the image has its binary at /usr/bin/canton-keyvault")
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(self.command(self.container["args"]), stdout=log, stderr=log, env=self.environment())

    def probe(self, name):
        """As the kubelet: HTTPS to the address of the pod, the certificate is not verified, 200 to 399 is a success."""
        get = self.container[name]["httpGet"]
        context = ssl._create_unverified_context()  # noqa: S323
        url = f"{get['scheme'].lower()}://127.0.0.1:{self.ops}{get['path']}"
        try:
            with urllib.request.urlopen(url, timeout=self.container[name].get("timeoutSeconds", 1), context=context) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def until(self, what, holds):
        deadline = time.monotonic() + 30
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                print((self.folder / "log").read_text(), file=sys.stderr)
                fail(f"{what}: not within 30 s")
            time.sleep(0.1)

    def client(self, dev, who, *arguments):
        pki = dev / "pki"
        call = ["--url", f"https://127.0.0.1:{self.api}", "--ca", pki / "ca.pem", "--cert", pki / f"{who}.pem", "--key", pki / f"{who}.key"]
        done = subprocess.run([self.binary, *arguments, *call, "--output", "json"], capture_output=True, text=True, timeout=30)
        return done.returncode, json.loads(done.stdout or "null"), done.stderr

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(self.spec["terminationGracePeriodSeconds"]) != 0:
            fail("the vault did not end in good order at SIGTERM")


def revocation_list(dev):
    """An empty list of the CA of `dev`, for the set of values that names one."""
    (dev / "index").write_text("")
    (dev / "number").write_text("01\n")
    options = f"database = {dev}/index\ncrlnumber = {dev}/number\ndefault_md = sha256\ncrl_extensions = extensions\n"
    (dev / "ca.cnf").write_text(f"[ca]\ndefault_ca = one\n[one]\n{options}[extensions]\nauthorityKeyIdentifier = keyid\n")
    make = ["openssl", "ca", "-gencrl", "-crldays", "30", "-config", dev / "ca.cnf", "-cert", dev / "pki/ca.pem", "-keyfile", dev / "pki/ca.key"]
    subprocess.run([*make, "-out", dev / "ca.crl"], check=True, capture_output=True)


def settings(binary, dev, *rendered):
    """Whether the vault accepts what each set of values renders. There is no KMS, so that the checks of wrapper keys fail."""
    dev = pathlib.Path(dev)
    revocation_list(dev)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    for path in rendered:
        folder = pathlib.Path(tempfile.mkdtemp())
        folder.chmod(0o755)
        try:
            pod = Pod(binary, dev, path, folder)
            check = pod.command(["check", "--config", pod.container["args"][2], "--output", "json"])
            done = subprocess.run(check, capture_output=True, text=True, env=pod.environment())
            found = {line["check"]: line for line in json.loads(done.stdout)}
            for name in ("configuration", "certificates", "revocation", "grants", "client CAs", "file modes", "folder"):
                if found.get(name, {}).get("status") != "ok":
                    fail(f"{path}: {name}: {found.get(name) or list(found.values())}")
            print(f"{path}: {found['configuration']['detail']}")
        finally:
            shutil.rmtree(folder)


def join_later(pod, dev, more):
    """A validator that runs already joins: its grant needs no restart, its key is imported and keeps its id, and is rotated."""
    pod.configure(more)
    pod.until("the second validator", lambda: "participant2" in str(pod.client(dev, "participant2", "whoami")[1]["grants"]))
    material = pod.folder / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", material], check=True)
    node = ["--node", "participant2", "--purpose", "signing", "--format", "pkcs8", "--material-file", material]
    code, key, said = pod.client(dev, "key-admin", "keys", "import", *node)
    if code != 0 or key["origin"] != "imported":
        fail(f"the key of the second validator cannot be imported: {said}")
    code, successor, said = pod.client(dev, "participant2", "keys", "rotate", key["id"])
    if code != 0:
        fail(f"the imported key cannot be rotated: {said}")
    for each in (key, successor):
        if pod.client(dev, "participant2", "keys", "sign", each["id"], "--algorithm", "ed25519", "--message-text", "hello")[0] != 0:
            fail("the second validator cannot sign")


def run(binary, dev, rendered, switched_off, more):
    dev = pathlib.Path(dev)
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    pod = None
    if not one(rendered, "StatefulSet") == one(switched_off, "StatefulSet") == one(more, "StatefulSet"):
        fail("a change of validators restarts the pod")
    try:
        pod = Pod(binary, dev, rendered, folder)
        pod.start()
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            pod.until(name, lambda name=name: pod.probe(name) == 200)
        # The modes that fsGroup yields are accepted: a check that fails or warns about them would be listed.
        done = subprocess.run(pod.command(["check", "--config", pod.container["args"][2], "--output", "json"]), capture_output=True, text=True)
        found = {line["check"]: line for line in json.loads(done.stdout)}
        for line in found.values():
            if line["status"] == "FAIL" or (line["status"] != "ok" and line["check"] in ("file modes", "folder", "grants", "certificates")):
                fail(f"check in the pod: {line}")
        if found["file modes"]["status"] != "ok":
            fail(f"check in the pod: {found['file modes']}")
        code, key, said = pod.client(dev, "participant1", "keys", "create", "--node", "participant1", "--purpose", "signing", "--spec", "ec-curve25519")
        if code != 0:
            fail(f"the validator is on, and its node cannot create a key: {said}")
        sign = ["keys", "sign", key["id"], "--algorithm", "ed25519", "--message-text", "hello"]
        if pod.client(dev, "participant1", *sign)[0] != 0:
            fail("the validator is on, and its node cannot sign")
        pod.configure(switched_off)
        pod.until("the switch of the validator", lambda: pod.client(dev, "participant1", *sign)[0] != 0)
        if pod.client(dev, "key-admin", "keys", "show", key["id"])[0] != 0:
            fail("the keys of a validator that is off must stay")
        pod.configure(rendered)
        pod.until("the switch of the validator, back", lambda: pod.client(dev, "participant1", *sign)[0] == 0)
        join_later(pod, dev, more)
        pod.client(dev, "key-admin", "freeze")
        pod.until("a frozen vault is not ready", lambda: pod.probe("readinessProbe") == 503 and pod.probe("livenessProbe") == 200)
        pod.stop()
        print("started with the rendered command and files; probes, file modes, the switch of a validator and a validator that joins later work")
    finally:
        if pod and pod.process and pod.process.poll() is None:
            pod.process.kill()
        shutil.rmtree(folder)


def start_postgresql(dev, folder):
    port = free_port()
    for name in ("server.pem", "server.key"):
        shutil.copy(dev / "pki" / name, folder / name)
    # The server stops when its standard input is closed.
    command = [ROOT / "tests/postgresql/run.sh", folder, str(port)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if server.stdout.readline().strip() != "ready":
        fail("PostgreSQL does not start")
    return server, f"postgresql://canton:secret@127.0.0.1:{port}/canton"


def replicas(binary, dev, rendered):
    """Two pods have one configuration, and names of their own, which they keep when they are killed. What one does, the other one knows."""
    dev, folder = pathlib.Path(dev), pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    wrapper = folder / "wrapper.key"
    shutil.copy(dev / "wrapper.key", wrapper)
    own(wrapper, 0o600, UID)
    pods, server = [], None
    spec = one(rendered, "StatefulSet")["spec"]
    if spec.get("volumeClaimTemplates") or spec["replicas"] < 2:
        fail("replicas over PostgreSQL have no volume, and are several")
    try:
        (folder / "postgresql").mkdir()
        server, url = start_postgresql(dev, folder / "postgresql")
        for number in range(2):
            (folder / str(number)).mkdir()
            pods.append(Pod(binary, dev, rendered, folder / str(number), number, url, wrapper))
            pods[-1].start()
            pods[-1].until("readiness", lambda pod=pods[-1]: pod.probe("readinessProbe") == 200)
        first, second = pods
        new = ["keys", "create", "--node", "participant1", "--purpose", "signing", "--spec", "ec-curve25519"]
        code, key, said = first.client(dev, "participant1", *new)
        if code != 0:
            fail(f"no key is created over PostgreSQL: {said}")
        sign = ["keys", "sign", key["id"], "--algorithm", "ed25519", "--message-text", "hello"]

        def signs(pod):
            return pod.client(dev, "participant1", *sign)[0] == 0

        def alive():
            return {each["instance"] for each in first.client(dev, "auditor", "status")[1]["replicas"] if each["live"]}

        if not (signs(first) and signs(second)):
            fail("a replica does not sign")
        names = {pod.name for pod in pods}
        first.until(f"the status has the replicas {names}", lambda: alive() == names)
        second.process.kill()
        second.process.wait()
        if not signs(first):
            fail("a replica does not sign without the other one")
        second.start()
        second.until("the replica has its name again", lambda: second.probe("readinessProbe") == 200 and signs(second))
        first.until(f"the status has the replicas {names} again", lambda: alive() == names)
        for pod in pods:
            pod.stop()
        print(f"{' and '.join(sorted(names))} serve one vault; one was killed and has its name again")
    finally:
        for pod in pods:
            if pod.process and pod.process.poll() is None:
                pod.process.kill()
        if server:
            server.stdin.close()
            server.wait(30)
        shutil.rmtree(folder)


COMMANDS = {"local": local, "schemas": schemas, "copies": copies, "pod": pod, "identity": identity, "settings": settings, "run": run, "replicas": replicas}
if __name__ == "__main__":
    if sys.argv[1] == "readme":
        readme("--write" in sys.argv)
    else:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
