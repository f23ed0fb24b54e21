"""Creates a key, signs with it, and lists keys and entries, with the client that openapi-python-client makes.

Arguments: the URL, and the folder with the certificates that `canton-keyvault dev` made.
"""

import base64
import ssl
import sys
import uuid

from keyvault_client import Client
from keyvault_client.api.audit import audit_query
from keyvault_client.api.keys import keys_create, keys_list, keys_show
from keyvault_client.api.use import keys_sign
from keyvault_client.models import (
    Algorithm,
    Code,
    CreateKey,
    Key,
    KeySpec,
    KeyState,
    Operation,
    Outcome,
    Problem,
    Purpose,
    SignRequest,
    Usage,
)
from keyvault_client.types import UNSET


def client(url, pki, principal):
    tls = ssl.create_default_context(cafile=f"{pki}/ca.pem")
    tls.load_cert_chain(f"{pki}/{principal}.pem", f"{pki}/{principal}.key")
    return Client(base_url=url, verify_ssl=tls, raise_on_unexpected_status=True)


def main(url, pki):
    node = client(url, pki, "participant1")
    request = CreateKey(node="participant1", purpose=Purpose.SIGNING, spec=KeySpec.EC_CURVE25519, usage=[Usage.PROTOCOL])
    idempotency = str(uuid.uuid4())
    key = keys_create.sync(client=node, body=request, idempotency_key=idempotency)
    assert isinstance(key, Key), key
    assert keys_create.sync(client=node, body=request, idempotency_key=idempotency) == key
    assert keys_show.sync(key.id, client=node) == key

    message = base64.b64encode(b"a message").decode()
    signed = keys_sign.sync(key.id, client=node, body=SignRequest(algorithm=Algorithm.ED25519, message=message))
    assert signed.key_id == key.id and len(base64.b64decode(signed.signature)) == 64, signed

    ids, cursor = [], UNSET
    while cursor is not None:
        page = keys_list.sync(client=node, node="participant1", purpose=Purpose.SIGNING, state=KeyState.ACTIVE, cursor=cursor, limit=1)
        assert all(isinstance(each, Key) for each in page.items), page
        ids += [each.id for each in page.items]
        cursor = page.next_cursor
    assert key.id in ids, ids

    auditor = client(url, pki, "auditor")
    entries = audit_query.sync(client=auditor, key_id=key.id, operation=Operation.KEYS_SIGN, outcome=Outcome.OK)
    assert len(entries.items) == 1 and entries.items[0].key_id == key.id, entries

    missing = keys_show.sync("1220" + "00" * 32, client=node)
    assert isinstance(missing, Problem) and missing.code == Code.NOT_FOUND and not missing.retryable, missing
    print(f"Python: created {key.id}, signed with it, and found it among {len(ids)} keys")


main(*sys.argv[1:])
