"""Leads the fuzzer to what exists: half of the ids that it makes up become ids of real keys, so that calls get past `404`.

The bodies, the rest of the ids, and everything else stay what the schema and the fuzzer make of it. `KEYVAULT_FUZZ_IDS` has the ids.
"""

import os
import random

import schemathesis

IDS = os.environ["KEYVAULT_FUZZ_IDS"].split()


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if path_parameters and "id" in path_parameters and random.random() < 0.5:
        kind = "wrapper-keys" if "wrapper-keys" in context.operation.path else "keys"
        ids = [each for each in IDS if each.startswith("wk-") == (kind == "wrapper-keys")]
        path_parameters["id"] = random.choice(ids)
    return path_parameters
