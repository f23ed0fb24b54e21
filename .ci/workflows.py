#!/usr/bin/env python3
"""Every workflow of GitHub names actions by commit, grants no permission that it does not list, and calls only scripts that exist."""

import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
SCRIPT = re.compile(r"(?<![\w./-])((?:\.ci|scripts|drivers)/[\w./-]+)")

wrong = []
files = sorted((ROOT / ".github/workflows").glob("*.yml"))
for file in files:
    workflow = yaml.safe_load(file.read_text())
    if workflow.get("permissions") != {"contents": "read"}:
        wrong.append(f"{file.name}: write `permissions: {{contents: read}}` at the top, and more only in a job that needs it")
    for name, job in workflow["jobs"].items():
        if "timeout-minutes" not in job:
            wrong.append(f"{file.name}: {name}: set timeout-minutes")
        for step in job["steps"]:
            if (action := step.get("uses")) and not PINNED.match(action):
                wrong.append(f"{file.name}: {name}: {action}: name the commit of the action, with its version in a comment")
            for script in SCRIPT.findall(step.get("run", "")):
                if not (ROOT / script).exists() and "/target/" not in script:
                    wrong.append(f"{file.name}: {name}: {script} does not exist")
if not files or wrong:
    sys.exit("\n".join(wrong or ["there is no workflow in .github/workflows"]))
print(f"{len(files)} workflows: actions by commit, least permissions, scripts that exist")
