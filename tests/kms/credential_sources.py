"""Doubles of the services that give AWS credentials: STS, SSO, container credentials and the instance metadata.

POST /_sources {"name": …, "access_key": "AKIA…", "lifetime": 3600, "token": "…", "refused": "AccessDenied", "status": 403}
  says what one source answers from now on. The name is that of the role (STS, SSO), the last part of the path (container), or "instance".
  Without an entry, a source refuses. "token", if set, is the web identity token, SSO token or Authorization header that must be sent.
"""

import json
import re
import threading
import time
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

# The lifetime of the token of the instance metadata.
HEADERS = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")]
LOCK, SOURCES = threading.Lock(), {}


def answer(environ, body, access_key):
    """(status, content type, body, entry of the log), or None if the request is for KMS."""
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if path == "/_sources":
        wanted = json.loads(body)
        with LOCK:
            SOURCES[wanted["name"]] = wanted
        return 204, "text/plain", "", None
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return sts({name: values[0] for name, values in parse_qs(body.decode()).items()}, access_key)
    if path == "/federation/credentials":
        query = parse_qs(environ["QUERY_STRING"])
        return sso(query["role_name"][0], environ["kms.sso_token"])
    if path.startswith("/container/"):
        return container(path.rsplit("/", 1)[1], environ.get("HTTP_AUTHORIZATION"))
    if path == "/latest/api/token" and method == "PUT":
        return 200, "text/plain", "metadata-token", None
    if path.startswith("/latest/meta-data/iam/security-credentials"):
        return instance(path.rstrip("/").rsplit("/", 1)[1])
    return None


def given(name, token):
    """What a source issues, or the entry that says why not."""
    with LOCK:
        wanted = SOURCES.get(name, {"refused": "AccessDenied"})
    if "refused" not in wanted and wanted.get("token") not in (None, token):
        wanted = wanted | {"refused": "InvalidIdentityToken"}
    return wanted


def expiry(wanted):
    return time.time() + wanted.get("lifetime", 3600)


def text(at):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def sts(parameters, access_key):
    action, name = parameters["Action"], parameters["RoleArn"].rsplit("/", 1)[1]
    token = parameters.get("WebIdentityToken")
    entry = {"source": name, "action": action, "access_key": access_key, "token": token}
    wanted = given(name, token)
    if "refused" in wanted:
        error = f"<ErrorResponse><Error><Type>Sender</Type><Code>{escape(wanted['refused'])}</Code><Message>s3cret</Message></Error></ErrorResponse>"
        return wanted.get("status", 403), "text/xml", error, entry
    issued = (
        f"<Credentials><AccessKeyId>{wanted['access_key']}</AccessKeyId><SecretAccessKey>test</SecretAccessKey>"
        f"<SessionToken>session</SessionToken><Expiration>{text(expiry(wanted))}</Expiration></Credentials>"
        f"<AssumedRoleUser><AssumedRoleId>A:b</AssumedRoleId><Arn>arn:aws:sts::123456789012:assumed-role/{name}/b</Arn></AssumedRoleUser>"
    )
    xml = f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>{issued}</{action}Result></{action}Response>'
    return 200, "text/xml", xml, entry


def sso(name, token):
    wanted, entry = given(name, token), {"source": name, "action": "GetRoleCredentials", "token": token}
    if "refused" in wanted:
        return 401, "application/json", json.dumps({"__type": "UnauthorizedException", "message": "s3cret"}), entry
    keys = {"accessKeyId": wanted["access_key"], "secretAccessKey": "test", "sessionToken": "session", "expiration": int(expiry(wanted) * 1000)}
    return 200, "application/json", json.dumps({"roleCredentials": keys}), entry


def container(name, token):
    wanted, entry = given(name, token), {"source": name, "action": "container", "token": token}
    if "refused" in wanted:
        return wanted.get("status", 401), "application/json", json.dumps({"code": wanted["refused"], "message": "s3cret"}), entry
    return 200, "application/json", json.dumps(issued(wanted)), entry


def instance(last):
    wanted, entry = given("instance", None), {"source": "instance", "action": "metadata"}
    if re.match("security-credentials", last):
        return 200, "text/plain", "role", entry
    if "refused" in wanted:
        return wanted.get("status", 500), "text/plain", "s3cret", entry
    return 200, "application/json", json.dumps(issued(wanted) | {"Code": "Success", "Type": "AWS-HMAC"}), entry


def issued(wanted):
    keys = {"AccessKeyId": wanted["access_key"], "SecretAccessKey": "test", "Token": "session", "Expiration": text(expiry(wanted))}
    return keys | {"LastUpdated": text(time.time()), "AccountId": "123456789012"}
