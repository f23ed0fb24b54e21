"""Records of CloudTrail, in the form of https://docs.aws.amazon.com/kms/latest/developerguide/understanding-kms-entries.html.

CloudTrail has no record of a request that AWS did not authenticate.
"""

import json
import time
import uuid

ACCOUNT = "123456789012"
NOT_AUTHENTICATED = {"ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException"}
READ_ONLY = {"Decrypt", "DescribeKey", "Encrypt", "GetKeyPolicy", "GetKeyRotationStatus", "ListKeyRotations", "ReEncrypt"}
CONTEXTS = {"EncryptionContext": "encryptionContext", "SourceEncryptionContext": "sourceEncryptionContext", "DestinationEncryptionContext": "destinationEncryptionContext"}
KEYS = {"KeyId": "keyId", "SourceKeyId": "sourceKeyId", "DestinationKeyId": "destinationKeyId"}


def record(environ, body, request, request_id):
    """The record of a request, before its answer is known."""
    try:
        parameters = json.loads(body or b"{}")
    except ValueError:
        return None
    shown = {name: parameters[field] for field, name in (KEYS | CONTEXTS).items() if field in parameters}
    if request["action"] in ("Encrypt", "Decrypt"):
        shown["encryptionAlgorithm"] = "SYMMETRIC_DEFAULT"
    arns = [arn(parameters[field], request["region"]) for field in ("SourceKeyId", "KeyId", "DestinationKeyId") if parameters.get(field)]
    return {
        "eventVersion": "1.11",
        "userIdentity": identity(request["access_key"]),
        "eventTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "eventSource": "kms.amazonaws.com",
        "eventName": request["action"],
        "awsRegion": request["region"],
        "sourceIPAddress": environ.get("REMOTE_ADDR"),
        "userAgent": environ.get("HTTP_USER_AGENT", ""),
        "requestParameters": shown,
        "responseElements": None,
        "requestID": request_id,
        "eventID": str(uuid.uuid4()),
        "readOnly": request["action"] in READ_ONLY,
        "resources": [{"accountId": ACCOUNT, "type": "AWS::KMS::Key", "ARN": key} for key in arns if key],
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
    }


def refused(record, code):
    """The record of a refused request; None if CloudTrail has none. A refused request has no resources."""
    if record is None or code in NOT_AUTHENTICATED:
        return None
    return {name: value for name, value in record.items() if name != "resources"} | {"errorCode": code.removesuffix("Exception")}


def answered(record, status, text):
    """The record of a request with this answer of moto."""
    if record is None:
        return None
    try:
        answer = json.loads(text or b"{}")
    except ValueError:
        answer = {}
    # Some actions have no answer.
    answer = answer if isinstance(answer, dict) else {}
    if not status.startswith("2"):
        return refused(record, answer.get("__type", "InternalFailure"))
    made = answer.get("KeyMetadata", {}).get("Arn")
    if made and not record["resources"]:
        record["resources"] = [{"accountId": ACCOUNT, "type": "AWS::KMS::Key", "ARN": made}]
    return record


def arn(key, region):
    """The ARN of a key; None of an alias."""
    if key.startswith("arn:"):
        return key if ":key/" in key else None
    return None if key.startswith("alias/") else f"arn:aws:kms:{region}:{ACCOUNT}:key/{key}"


def identity(access_key):
    """The vault of the tests has the access key `test` and runs under a role; anybody else is a user of that name."""
    if access_key == "test":
        role = f"arn:aws:iam::{ACCOUNT}:role/keyvault"
        return {
            "type": "AssumedRole",
            "principalId": "AROAEXAMPLE:i-0123456789abcdef0",
            "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/keyvault/i-0123456789abcdef0",
            "accountId": ACCOUNT,
            "accessKeyId": "ASIAEXAMPLE",
            "sessionContext": {"sessionIssuer": {"type": "Role", "arn": role, "accountId": ACCOUNT, "userName": "keyvault"}},
        }
    return {"type": "IAMUser", "principalId": "AIDAEXAMPLE", "arn": f"arn:aws:iam::{ACCOUNT}:user/{access_key}", "accountId": ACCOUNT, "userName": access_key}
