"""Where moto is kinder than AWS KMS, or wrong: corrected, so that a test of a refusal proves something.

Found in moto 5.2.5: ids of multi-Region keys do not fit the header of its ciphertexts; disabled keys and keys pending
deletion go on working; a wrong KeyId on Decrypt is AccessDenied; contexts are joined without lengths; ARNs of another
region are taken; an ARN is a server error where a key id is meant; replicas and deletion windows are not checked; of rotation, neither
the period nor the next date is told.
"""

import re
import struct
import time
import uuid

from moto.core.exceptions import JsonRESTError
from moto.kms import models, responses, utils


class KmsError(JsonRESTError):
    code = 400

    def __init__(self, name, message=""):
        super().__init__(name, message)


def install():
    for module in (models, utils):
        module.generate_key_id = generate_key_id
    utils._serialize_encryption_context = serialize_encryption_context
    backend, response = models.KmsBackend, responses.KmsResponse
    response._validate_cmk_id = validate_cmk_id
    backend.create_key = create_key(backend.create_key)
    for name in ("disable_key", "enable_key", "cancel_key_deletion"):
        setattr(backend, name, by_any_id(getattr(backend, name)))
    backend.encrypt = encrypt(backend.encrypt)
    backend.decrypt = decrypt
    backend.replicate_key = replicate_key(backend.replicate_key)
    response.schedule_key_deletion = schedule_key_deletion
    response.re_encrypt = re_encrypt(response.re_encrypt)
    response.enable_key_rotation = enable_key_rotation
    response.get_key_rotation_status = get_key_rotation_status


def generate_key_id(multi_region=False):
    """36 characters in both cases, as in AWS and as in the header of moto's ciphertexts."""
    return f"mrk-{uuid.uuid4().hex}" if multi_region else str(uuid.uuid4())


def serialize_encryption_context(encryption_context):
    """With lengths: {"a": "bc"} is not {"ab": "c"}."""
    parts = [text.encode() for pair in sorted(encryption_context.items()) for text in pair]
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def validate_cmk_id(self, key_id):
    arn = re.fullmatch(r"arn:[^:]+:kms:([^:]+):\d{12}:key/(.+)", key_id)
    if arn and arn.group(1) != self.region:
        raise KmsError("NotFoundException", f"Invalid arn {arn.group(1)}")
    if not arn and not re.fullmatch(r"mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", key_id):
        raise KmsError("NotFoundException", f"Invalid keyId {key_id}")
    if self.kms_backend.get_key_id(key_id) not in self.kms_backend.keys:
        raise KmsError("NotFoundException", f"Key '{key_id}' does not exist")


def by_any_id(original):
    def resolved(self, key_id):
        return original(self, self.any_id_to_key_id(key_id))

    return resolved


def create_key(original):
    def with_default(self, policy, key_usage, *rest):
        return original(self, policy, key_usage or "ENCRYPT_DECRYPT", *rest)

    return with_default


def check_usable(key):
    if key.key_state == "Disabled":
        raise KmsError("DisabledException", f"{key.arn} is disabled.")
    if key.key_state != "Enabled":
        raise KmsError("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    if key.key_usage != "ENCRYPT_DECRYPT":
        raise KmsError("InvalidKeyUsageException", f"{key.arn} key usage is {key.key_usage}.")


def encrypt(original):
    def checked(self, key_id, plaintext, encryption_context):
        check_usable(self.keys[self.any_id_to_key_id(key_id)])
        return original(self, key_id, plaintext, encryption_context)

    return checked


def decrypt(self, ciphertext_blob, encryption_context, key_id=None):
    try:
        made_by = utils._deserialize_ciphertext_blob(ciphertext_blob).key_id
    except (struct.error, UnicodeDecodeError) as error:
        raise KmsError("InvalidCiphertextException") from error
    if made_by not in self.keys:
        raise KmsError("InvalidCiphertextException")
    if key_id is not None and self.any_id_to_key_id(key_id) != made_by:
        raise KmsError("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
    check_usable(self.keys[made_by])
    plaintext, _ = utils.decrypt(self.keys, ciphertext_blob, encryption_context)
    return plaintext, self.keys[made_by].arn


def re_encrypt(original):
    def checked(self):
        source = self._get_param("SourceKeyId")
        if source:
            self._validate_key_id(source)
            # Refuses as Decrypt does, and names the key as Decrypt does.
            context = self._get_param("SourceEncryptionContext", {})
            decrypt(self.kms_backend, self._get_param("CiphertextBlob"), context, source)
        return original(self)

    return checked


def replicate_key(original):
    def checked(self, key_id, replica_region):
        key = self.keys[self.any_id_to_key_id(key_id)]
        if not key.multi_region:
            raise KmsError("UnsupportedOperationException", f"{key.arn} is not a multi-Region key.")
        if key.id in models.kms_backends[self.account_id][replica_region].keys:
            raise KmsError("AlreadyExistsException", f"{key.id} exists in {replica_region}.")
        return original(self, key.id, replica_region)

    return checked


def schedule_key_deletion(self):
    key_id = self._get_param("KeyId")
    days = self._get_param("PendingWindowInDays") or 30
    self._validate_cmk_id(key_id)
    key = self.kms_backend.keys[self.kms_backend.get_key_id(key_id)]
    if not 7 <= days <= 30:
        raise KmsError("ValidationException", "PendingWindowInDays must be between 7 and 30.")
    if key.key_state == "PendingDeletion":
        raise KmsError("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    date = self.kms_backend.schedule_key_deletion(key.id, days)
    return responses.json.dumps({"KeyId": key.arn, "DeletionDate": date, "KeyState": key.key_state, "PendingWindowInDays": days})


def enable_key_rotation(self):
    key_id = self._get_param("KeyId")
    self._validate_cmk_id(key_id)
    key = self.kms_backend.keys[self.kms_backend.get_key_id(key_id)]
    check_usable(key)
    days = self._get_param("RotationPeriodInDays") or 365
    if not 90 <= days <= 2560:
        raise KmsError("ValidationException", "RotationPeriodInDays must be between 90 and 2560.")
    key.key_rotation_status, key.rotation_period = True, days
    return ""


def get_key_rotation_status(self):
    key_id = self._get_param("KeyId")
    self._validate_cmk_id(key_id)
    key = self.kms_backend.keys[self.kms_backend.get_key_id(key_id)]
    status = {"KeyId": key.id, "KeyRotationEnabled": key.key_rotation_status}
    if key.key_rotation_status:
        days = getattr(key, "rotation_period", 365)
        status |= {"RotationPeriodInDays": days, "NextRotationDate": time.time() + days * 86400}
    return responses.json.dumps(status)
