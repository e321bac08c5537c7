"""The scenario reference is what the code says, and complete."""

import json
import re
from pathlib import Path

from tools import reference
from twin.scenario import schema

PAGE = Path(__file__).parents[2] / "docs" / "scenario.md"


def test_the_page_is_as_the_code_has_it():
    assert PAGE.read_text(encoding="utf-8") == reference.page(), "python -m tools.reference"


def test_every_key_of_the_schema_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    keys = set(re.findall(r"^\| `(\w+)` \|", text, re.M))
    made = schema()
    for node in (made, *made["$defs"].values()):
        assert set(node.get("properties", ())) - {"kind"} <= keys, json.dumps(node)[:80]


def test_every_link_within_the_page_leads_somewhere():
    text = PAGE.read_text(encoding="utf-8")
    anchors = {reference.anchor(line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
