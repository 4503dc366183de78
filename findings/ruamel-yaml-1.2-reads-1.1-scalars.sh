#!/usr/bin/env bash
# Expected: ruamel.yaml implements YAML 1.2, whose core schema (chapter 10.3 of its specification) knows no underscores
#   in numbers, no binary integers and no dates: 1_000, 0b11 and 2020-01-01 are texts there.
# Happens: its safe loader, with the version set to 1.2 and nothing else, reads them as 1000, 3 and a date, as YAML 1.1
#   does; yes and off are texts, as 1.2 has it.
# Versions: ruamel.yaml 0.19.1, PyYAML 6.0.3 beside it, seen on 2026-11-30.
# Matters: class names and prompts of detection data sets stand in YAML (YOLO's `names`, campaign files): a class called
#   1_000 or 2020-01-01 becomes a number or a date by a change of the loader alone, and no longer matches the COCO file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check ruamel.yaml==0.19.1 PyYAML==6.0.3
"$folder/venv/bin/python" - <<'PY'
import io
from importlib.metadata import version

import yaml
from ruamel.yaml import YAML

print("ruamel.yaml", version("ruamel.yaml"), "and PyYAML", version("PyYAML"))
TEXT = "names: [1_000, 0b11, 2020-01-01, yes, off]\n"


def by_ruamel(text):
    loader = YAML(typ="safe", pure=True)
    loader.version = (1, 2)
    return loader.load(io.StringIO(text))["names"]


found, older = by_ruamel(TEXT), yaml.safe_load(TEXT)["names"]
print("ruamel.yaml, YAML 1.2:", [(type(one).__name__, str(one)) for one in found])
print("PyYAML, YAML 1.1:     ", [(type(one).__name__, str(one)) for one in older])
assert found[:3] == older[:3] == [1000, 3, older[2]] and type(found[2]).__name__ == "date", found
assert found[3:] == ["yes", "off"] and older[3:] == [True, False], (found, older)
print("FINDING: ruamel.yaml's YAML 1.2 reads 1_000, 0b11 and 2020-01-01 as numbers and a date, as YAML 1.1 does")
PY
