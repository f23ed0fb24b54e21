"""Asks a Prometheus every query of the dashboard and every expression of the alerts, and that the panels have data.

    check.py http://127.0.0.1:9090
"""

import json
import pathlib
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

# Panels without data in this test, and why.
EMPTY = {
    "Degraded, by reason": "the vault is healthy",
    "Sinks: entries not confirmed": "dev has no audit sink",
    "Sinks: up": "dev has no audit sink",
    "Age of the newest cosignature": "dev has no witness",
}
# Alerts that must not be active after an ordinary load. The others depend on the machine.
MACHINE = {"KeyvaultDiskFull", "KeyvaultDiskFillsInAWeek", "KeyvaultMemorySwapped", "KeyvaultCommitSlow", "KeyvaultSignaturesSlow"}
ROOT = pathlib.Path(__file__).parents[2]
WAIT = 60


def ask(server, path, **query):
    try:
        with urllib.request.urlopen(f"{server}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            said = json.load(answer)
    except urllib.error.HTTPError as error:
        said = json.load(error)
    if said["status"] != "success":
        sys.exit(f"{query or path}: {said['error']}")
    if said.get("warnings"):
        sys.exit(f"{query or path}: {said['warnings']}")
    return said["data"]


def expressions(panel):
    """The queries of a panel, as Grafana sends them for all jobs and instances."""
    for target in panel.get("targets", []):
        yield target["expr"].replace("$job", ".+").replace("$instance", ".+").replace("$__rate_interval", "30s")


def has_data(series):
    return any(sample[1] not in ("NaN", "+Inf", "-Inf") for sample in (one["value"] for one in series))


def main(server):
    dashboard = json.loads((ROOT / "deploy/grafana/keyvault.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    unknown = set(EMPTY) - {panel["title"] for panel in panels}
    if unknown:
        sys.exit(f"EMPTY names panels that the dashboard does not have: {unknown}")
    queries = 0
    for panel in panels:
        for expression in expressions(panel):
            queries += 1
            deadline = time.monotonic() + WAIT
            while not (found := has_data(ask(server, "query", query=expression)["result"])) and panel["title"] not in EMPTY:
                if time.monotonic() > deadline:
                    sys.exit(f"the panel {panel['title']} has no data: {expression}")
                time.sleep(0.5)
            if found and panel["title"] in EMPTY:
                sys.exit(f"the panel {panel['title']} has data: remove it from EMPTY of {__file__}")
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            name = variable["query"]["query"].rsplit(",", 1)[1].strip(" )")
            if not ask(server, f"label/{name}/values"):
                sys.exit(f"the variable {name} has no values")
    rules = [rule for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        ask(server, "query", query=rule["expr"])
    loaded = [rule for group in ask(server, "rules")["groups"] for rule in group["rules"]]
    if len(loaded) != len(rules) or any(rule["health"] == "err" for rule in loaded):
        sys.exit(f"Prometheus did not evaluate the rules: {loaded}")
    active = {rule["name"] for rule in loaded if rule["state"] == "firing"} - MACHINE
    if active:
        sys.exit(f"these alerts fire although the vault is healthy: {active}")
    print(f"{len(panels)} panels with {queries} queries, {len(EMPTY)} of them without data as listed; {len(rules)} alerts, none of which fires")


main(*sys.argv[1:])
