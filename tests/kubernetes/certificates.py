"""cert-manager makes the certificates of the chart from a CA in a secret; the vault serves with the files of these secrets, its nodes sign, and renewed certificates need no restart.

    certificates.py BINARY      cert-manager runs already
"""

import base64
import datetime
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile

import yaml

from api import CHART, NAME, RELEASE, ROOT, exists, fail, get, helm, kubectl, make_namespace, succeeds, unready, until, values

sys.path.insert(0, str(ROOT / "tests/helm"))
from check import UID, Pod, own  # noqa: E402

NAMESPACE = "keyvault"
SERVER = f"{NAME}-server"
NODES = {"participant1": "participant1-keyvault-client", "mediator1": "mediator1-keyvault-client"}
# A CA that cert-manager keeps in a secret of its namespace, and the issuer that the values name.
ISSUERS = """
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: { name: root }
spec: { selfSigned: {} }
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: { name: canton-ca, namespace: cert-manager }
spec:
  isCA: true
  commonName: canton-ca
  secretName: canton-ca
  duration: 87600h
  privateKey: { algorithm: ECDSA, size: 256 }
  issuerRef: { kind: ClusterIssuer, name: root }
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: { name: canton-ca }
spec: { ca: { secretName: canton-ca } }
"""


def secret(namespace, name):
    return {key: base64.b64decode(text) for key, text in get(namespace, "secret", name)["data"].items()}


def condition(namespace, kind, name, which="Ready"):
    found = get(namespace, kind, name).get("status", {}).get("conditions", [])
    return next((each["status"] for each in found if each["type"] == which), None)


def issued(namespace, name):
    until(f"the certificate {name}", lambda: condition(namespace, "certificate", name) == "True")
    return secret(namespace, name)


def issuer():
    make_namespace("cert-manager")
    kubectl("create", "--filename", "-", stdin=ISSUERS)
    until("the CA and its issuer", lambda: condition("cert-manager", "clusterissuer", "canton-ca") == "True")
    ca = secret("cert-manager", "canton-ca")["tls.crt"]
    make_namespace(NAMESPACE)
    # The vault gets the certificate of the CA, and not its key.
    for name in ("canton-ca", "collector-ca"):
        document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"ca.crt": base64.b64encode(ca).decode()}}
        kubectl("create", "--namespace", NAMESPACE, "--filename", "-", stdin=json.dumps(document))
    return ca


def renew(namespace, name):
    """What `cmctl renew` does. The secret has another certificate and another key afterwards."""
    before = secret(namespace, name)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    asked = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "test", "lastTransitionTime": now}
    conditions = [each for each in get(namespace, "certificate", name)["status"]["conditions"] if each["type"] != "Issuing"] + [asked]
    patch = json.dumps({"status": {"conditions": conditions}})
    kubectl("patch", "certificate", name, "--namespace", namespace, "--subresource=status", "--type=merge", "--patch", patch)
    until(f"{name} is renewed", lambda: secret(namespace, name)["tls.crt"] != before["tls.crt"])
    until(f"{name} is ready", lambda: condition(namespace, "certificate", name) == "True" and condition(namespace, "certificate", name, "Issuing") is None)
    after = secret(namespace, name)
    if after["tls.key"] == before["tls.key"]:
        fail(f"{name}: the renewed certificate has the key of the old one")
    return after


class Vault(Pod):
    """The process of the pod that the StatefulSet of the API server describes, with the files of the secrets there."""

    def __init__(self, binary, folder):
        described = folder / "described.yaml"
        described.write_text(yaml.safe_dump_all([get(NAMESPACE, "statefulset", NAME), get(NAMESPACE, "configmap", NAME)]))
        wrapper = folder / "wrapper.key"
        wrapper.write_text(f"canton-keyvault local wrapper key, version 1\n{base64.b64encode(bytes(range(32))).decode()}\n")
        own(wrapper, 0o600, UID)
        super().__init__(binary, None, described, folder, wrapper=wrapper, secrets=lambda name: secret(NAMESPACE, name))

    def served(self, port):
        """The certificate that the vault shows on a port, verified with the CA of its own secret and the name of its service."""
        context = ssl.create_default_context(cadata=secret(NAMESPACE, SERVER)["ca.crt"].decode())
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname=f"{NAME}.{NAMESPACE}.svc") as connection:
                return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True))

    def shows(self, certificate):
        leaf = ssl.PEM_cert_to_DER_cert(certificate.decode().partition("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n")
        return all(self.served(port) == ssl.DER_cert_to_PEM_cert(leaf) for port in (self.api, self.ops))

    def node(self, name, files, *arguments):
        """A command of a node, with the files of its secret, as it mounts them."""
        folder = self.folder / f"node-{name}"
        folder.mkdir(exist_ok=True)
        for key, text in files.items():
            (folder / key).write_bytes(text)
        call = ["--url", f"https://localhost:{self.api}", "--ca", folder / "ca.crt", "--cert", folder / "tls.crt", "--key", folder / "tls.key"]
        done = subprocess.run([self.binary, *arguments, *call, "--output", "json"], capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            fail(f"{name}: {' '.join(arguments)}: {done.stderr}")
        return json.loads(done.stdout)

    def signs(self, name, files, key):
        return self.node(name, files, "keys", "sign", key, "--algorithm", "ed25519", "--message-text", "hello")


def metrics(vault):
    """As Prometheus would, with the CA and the name that the ServiceMonitor says."""
    endpoint = get(NAMESPACE, "servicemonitor", NAME)["spec"]["endpoints"][0]
    ca = endpoint["tlsConfig"]["ca"]["secret"]
    context = ssl.create_default_context(cadata=secret(NAMESPACE, ca["name"])[ca["key"]].decode())
    with socket.create_connection(("127.0.0.1", vault.ops), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname=endpoint["tlsConfig"]["serverName"]) as connection:
            connection.sendall(f"GET {endpoint['path']} HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    if not answer.startswith(b"HTTP/1.1 200") or b"keyvault_build_info" not in answer:
        fail(f"the metrics are not where the ServiceMonitor says: {answer[:200]}")


def main(binary):
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    vault = None
    try:
        ca = issuer()
        settings = ["--values", values("cert-manager-monitoring"), "--set", "certManager.dnsNames={localhost}"]
        unready(NAMESPACE, "*")
        helm("install", NAMESPACE, RELEASE, CHART, *settings)
        issued(NAMESPACE, SERVER)
        files = {name: issued("splice", of) for name, of in NODES.items()}
        if any(each["ca.crt"] != ca for each in files.values()):
            fail("the secret of a node has not the CA")
        vault = Vault(binary, folder)
        vault.start()
        vault.until("readiness", lambda: vault.probe("readinessProbe") == 200)
        unready(NAMESPACE, "")
        kubectl("rollout", "status", f"statefulset/{NAME}", "--namespace", NAMESPACE, "--timeout", "1m")
        metrics(vault)
        keys = {}
        for name in NODES:
            key = vault.node(name, files[name], "keys", "create", "--node", name, "--purpose", "signing", "--spec", "ec-curve25519")
            keys[name] = key["id"]
            vault.signs(name, files[name], key["id"])
        if not vault.shows(secret(NAMESPACE, SERVER)["tls.crt"]):
            fail("the vault does not show the certificate of its secret")
        renewed = renew(NAMESPACE, SERVER)
        vault.update(SERVER, renewed)
        vault.until("the vault shows its renewed certificate", lambda: vault.shows(renewed["tls.crt"]))
        for name, of in NODES.items():
            vault.signs(name, files[name], keys[name])
            vault.signs(name, renew("splice", of), keys[name])
        # A validator that is switched off: its Certificates go. cert-manager leaves their secrets.
        succeeds("helm", "upgrade", "--namespace", NAMESPACE, RELEASE, CHART, *settings, "--set", "validators.splice.enabled=false")
        for of in NODES.values():
            if exists("splice", "certificate", of) or not exists("splice", "secret", of):
                fail(f"{of}: the Certificate must go, and its secret stays")
        vault.stop()
        print("certificates by cert-manager: the vault serves, nodes sign, renewed certificates are taken without a restart")
    finally:
        if vault and vault.process and vault.process.poll() is None:
            vault.process.kill()
        shutil.rmtree(folder)


main(sys.argv[1])
