"""A double of AWS KMS for tests: moto, corrected where it is too kind (shim.py), with faults on demand and a log of requests.

Listens on 127.0.0.1, prints its address on one line, and ends when its standard input closes.

POST /_fault {"mode": …, "only": "Decrypt", "key": "<part of a key id>", "access_key": …, "region": …, "count": 1, "delay_ms": 500}
  adds a fault for the requests that match ("only", "key", "access_key", "region" narrow it; "count" ends it). Modes:
    throttle, internal, unavailable, denied, missing, creating   the error of KMS by that name
    expired, unknown_access_key, wrong_secret                    the errors about credentials
    skew                                      wrong_secret, from a server whose clock is an hour ahead
    garbage                                   an answer that is not KMS's
    slow                                      the right answer, after delay_ms
    drop                                      the connection is closed without an answer
  {"mode": "none", "key": …} takes away the faults for that key, {"mode": "none"} all.

Other paths are the sources of credentials (credential_sources.py).

Each request is one JSON line in the file of --log: action, key_id, access_key, context, region, fault, request_id. Of ReEncrypt, `context` is that
of the destination, and source_key_id, destination_key_id and source_context come besides; "key" of a fault matches either key.

Each request that AWS would authenticate is a record of CloudTrail in the file of --cloudtrail (cloudtrail.py).
"""

import argparse
import io
import json
import logging
import os
import re
import socket
import sys
import threading
import time
import uuid

os.environ.setdefault("MOTO_ALLOW_NONEXISTENT_REGION", "true")

from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402
from moto.moto_server.werkzeug_app import create_backend_app  # noqa: E402

import cloudtrail  # noqa: E402
import credential_sources  # noqa: E402
import shim  # noqa: E402

ERRORS = {
    "throttle": (400, "ThrottlingException"),
    "internal": (500, "KMSInternalException"),
    "unavailable": (503, "DependencyTimeoutException"),
    "denied": (400, "AccessDeniedException"),
    "missing": (400, "NotFoundException"),
    "creating": (400, "KMSInvalidStateException"),
    "expired": (400, "ExpiredTokenException"),
    "unknown_access_key": (400, "UnrecognizedClientException"),
    "wrong_secret": (400, "InvalidSignatureException"),
    "skew": (400, "InvalidSignatureException"),
}


class Double:
    """The WSGI application in front of moto."""

    def __init__(self, moto, log, trail):
        self.moto, self.log, self.trail = moto, log, trail
        self.lock, self.faults = threading.Lock(), []

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["PATH_INFO"] == "/_fault":
            self.set_fault(json.loads(body))
            start_response("204 No Content", [])
            return [b""]

        access_key = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        access_key = access_key and access_key.group(1)
        found = credential_sources.answer(environ, body, access_key)
        if found:
            status, content_type, text, entry = found
            if entry:
                self.write(entry)
            start_response(f"{status} -", [("Content-Type", content_type), *credential_sources.HEADERS, ("Content-Length", str(len(text)))])
            return [text.encode()]

        request = self.describe(environ, body) | {"access_key": access_key}
        fault = self.take_fault(request)
        request_id = str(uuid.uuid4())
        self.write(request | {"fault": fault and fault["mode"], "request_id": request_id})
        mode = fault["mode"] if fault else "none"
        record = cloudtrail.record(environ, body, request, request_id)
        if mode == "drop":
            self.deliver(record)
            connection = environ["werkzeug.socket"]
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
            raise ConnectionAbortedError
        if mode == "garbage":
            return answer(start_response, 400, b"<html>a proxy</html>", request_id, "text/html")
        if mode in ERRORS:
            status, code = ERRORS[mode]
            environ["kms.ahead"] = 3600 if mode == "skew" else 0
            self.deliver(cloudtrail.refused(record, code))
            return answer(start_response, status, json.dumps({"__type": code, "message": f"fault: {mode}"}).encode(), request_id)
        if mode == "slow":
            time.sleep(fault.get("delay_ms", 1000) / 1000)

        environ["wsgi.input"] = io.BytesIO(body)
        statuses = []

        def start_with_id(status, headers, exc_info=None):
            statuses.append(status)
            headers = [(name, value) for name, value in headers if name.lower() != "x-amzn-requestid"]
            return start_response(status, headers + [("x-amzn-requestid", request_id)], exc_info)

        text = b"".join(self.moto(environ, start_with_id))
        self.deliver(cloudtrail.answered(record, statuses[-1], text))
        return [text]

    @staticmethod
    def describe(environ, body):
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        try:
            parameters = json.loads(body or b"{}")
        except ValueError:
            parameters = {}
        request = {
            "action": environ.get("HTTP_X_AMZ_TARGET", "").removeprefix("TrentService."),
            "key_id": parameters.get("KeyId"),
            "context": parameters.get("EncryptionContext"),
            "region": scope and scope.group(1),
        }
        if request["action"] == "ReEncrypt":
            request |= {
                "source_key_id": parameters.get("SourceKeyId"),
                "destination_key_id": parameters.get("DestinationKeyId"),
                "source_context": parameters.get("SourceEncryptionContext"),
                "context": parameters.get("DestinationEncryptionContext"),
            }
        return request

    def set_fault(self, fault):
        with self.lock:
            if fault["mode"] == "none":
                self.faults = [kept for kept in self.faults if fault.get("key") not in (None, kept.get("key"))]
            else:
                self.faults.insert(0, fault)

    def take_fault(self, request):
        keys = [request.get(name) or "" for name in ("key_id", "source_key_id", "destination_key_id")]
        with self.lock:
            for fault in self.faults:
                matches = (
                    fault.get("only") in (None, request["action"])
                    and fault.get("region") in (None, request["region"])
                    and fault.get("access_key") in (None, request["access_key"])
                    and any(fault.get("key", "") in key for key in keys)
                )
                if matches:
                    if "count" in fault:
                        fault["count"] -= 1
                        if fault["count"] <= 0:
                            self.faults.remove(fault)
                    return fault
        return None

    def deliver(self, record):
        if record:
            with self.lock:
                self.trail.write(json.dumps(record) + "\n")
                self.trail.flush()

    def write(self, entry):
        with self.lock:
            self.log.write(json.dumps(entry) + "\n")
            self.log.flush()


def answer(start_response, status, body, request_id, content_type="application/x-amz-json-1.1"):
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("x-amzn-requestid", request_id)]
    start_response(f"{status} -", headers)
    return [body]


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass

    def make_environ(self):
        # werkzeug drops headers with an underscore.
        return super().make_environ() | {"kms.sso_token": self.headers.get("x-amz-sso_bearer_token")}

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + self.environ.get("kms.ahead", 0))

    def run_wsgi(self):
        try:
            super().run_wsgi()
        except (ConnectionError, OSError, ValueError):
            self.close_connection = True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True, help="file for a JSON line per request")
    parser.add_argument("--cloudtrail", default=os.devnull, help="file for a record of CloudTrail per request")
    arguments = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    shim.install()
    moto = create_backend_app("kms")
    with open(arguments.log, "a", encoding="utf-8") as log, open(arguments.cloudtrail, "a", encoding="utf-8") as trail:
        server = make_server("127.0.0.1", 0, Double(moto, log, trail), threaded=True, request_handler=Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        sys.stdin.read()
        os._exit(0)


if __name__ == "__main__":
    main()
