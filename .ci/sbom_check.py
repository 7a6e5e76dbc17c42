"""Holds the list of what goes into the program to CycloneDX's schema, and to Cargo.lock."""

import json
import sys
import tomllib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = open(sys.argv[1], encoding="utf-8").read()
lock = tomllib.load(open(sys.argv[2], "rb"))["package"]
validator = JsonStrictValidator(SchemaVersion.V1_5)


def broken(change):
    bom = json.loads(text)
    change(bom)
    return json.dumps(bom)


# The validator finds what is wrong, or its silence means nothing.
for change in (
    lambda bom: bom["components"][0].pop("name"),
    lambda bom: bom["components"][0].update(kind="crate"),
    lambda bom: bom["components"].append(bom["components"][0]),
    lambda bom: bom["components"][0].update(hashes=[{"alg": "SHA-256", "content": "short"}]),
):
    assert validator.validate_str(broken(change)) is not None, "the validator lets a broken document pass"
error = validator.validate_str(text)
assert error is None, error

bom = json.loads(text)
components = bom["components"]
refs = {c["bom-ref"] for c in components} | {bom["metadata"]["component"]["bom-ref"]}
refs |= {part["bom-ref"] for c in components for part in c.get("components", [])}
for node in bom["dependencies"]:
    assert node["ref"] in refs and refs.issuperset(node["dependsOn"]), node

# Every crate from crates.io has the checksum that cargo checks; nothing that only tests or builds need is in it.
locked = {(p["name"], p["version"]): p.get("checksum") for p in lock}
for c in components:
    sums = [h["content"] for h in c.get("hashes", [])]
    assert sums == [s for s in [locked[c["name"], c["version"]]] if s], c
names = {c["name"] for c in components}
assert {"spinexr-serve", "burn-core", "ring", "dicom-core"} <= names, "a crate that the program has is missing"
assert not names & {"proptest", "divan", "assert_cmd", "cc", "serde_derive", "xtask", "spinexr-bench"}, names
reached, front = set(), {bom["metadata"]["component"]["bom-ref"]}
needs = {node["ref"]: node["dependsOn"] for node in bom["dependencies"]}
while front:
    reached |= front
    front = {d for ref in front for d in needs.get(ref, [])} - reached
assert reached == refs, refs - reached
print(f"CycloneDX {bom['specVersion']}: {len(components)} crates, valid, with the checksums of Cargo.lock")
