"""What the documents say can be followed: links lead somewhere, commands parse, modules that are named exist."""

import argparse
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from twin.__main__ import parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def blocks(text: str) -> list[str]:
    """Lines of code blocks that begin with ``twin``, without what follows them in a shell."""
    inside = [line for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    lines = [re.split(r"\s+[&>|#]", line.strip().removeprefix("$ "))[0] for line in inside]
    return [line for line in lines if line.startswith("twin ") and not re.search(r"…|\.\.\.|\[--", line)]


@pytest.fixture(scope="module")
def whole():
    return parser("")


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_that_are_there(name):
    page = ROOT / name
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)#\s]+)", prose):
        if not re.match(r"\w+:", link):
            assert (page.parent / link).exists(), f"{name}: {link}"


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_ones_that_parse(name, whole, monkeypatch):
    def refused(self, message):
        raise AssertionError(f"{name}: {line}: {message}")

    monkeypatch.setattr(argparse.ArgumentParser, "error", refused)
    text = (ROOT / name).read_text(encoding="utf-8")
    for line in blocks(text):
        whole.parse_args(shlex.split(line)[1:])
    known = whole._subparsers._group_actions[0].choices
    for word in re.findall(r"`twin ([a-z]+)", text):
        assert word in known, f"{name}: twin {word}"


@pytest.mark.parametrize("name", NAMES)
def test_modules_to_run_are_there(name):
    for module in re.findall(r"python -m ([\w.]+\w)", (ROOT / name).read_text(encoding="utf-8")):
        assert find_spec(module) is not None, f"{name}: {module}"
