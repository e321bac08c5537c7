"""The example servers pass the suite over the wire, and each thing left out of one fails the rule that is there for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hal.conformance import LAST, RULES, SESSION_RULES, Verdict, check
from hal.devices.remote import Remote
from hal.errors import LateArrival
from twin import device_check

EXAMPLES = Path(__file__).parents[2] / "tools" / "examples"
MACHINE = Path(__file__).parent / "devices" / "machine.py"


@contextmanager
def running(*command: str | Path, cwd: Path | None = None) -> Iterator[str]:
    """A server as a program; yields the endpoint that its first line names."""
    program = subprocess.Popen(
        [*map(str, command), "tcp://127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=cwd
    )
    assert program.stdout is not None
    try:
        yield program.stdout.readline().strip()
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


def judged(endpoint: str, only: list[str] | None = None) -> list[Verdict]:
    frontend = Remote(endpoint, timeout_s=10.0, warn_s=5.0).open(None)
    try:
        return check(frontend, endpoint, only=only, fresh=True, closing=only is None, latency_limit_s=1.0)
    finally:
        frontend.close()


def kept(verdicts: list[Verdict]) -> set[str]:
    assert not [v for v in verdicts if v.verdict == "fail"]
    assert [v.rule for v in verdicts] == [*RULES, *SESSION_RULES, *LAST]
    return {v.rule for v in verdicts if v.verdict == "skip"}


def test_our_own_server_passes_with_nothing_left_out() -> None:
    with running(sys.executable, MACHINE) as endpoint:
        assert kept(judged(endpoint)) == set()


def test_the_python_example_passes() -> None:
    with running(sys.executable, EXAMPLES / "device_server.py") as endpoint:
        assert kept(judged(endpoint)) == {"delay_steps", "reception"}  # no delay lines; its air is real


def test_the_examples_use_none_of_our_code() -> None:
    for name in ("device_server.py", "device_server.js"):
        lines = (EXAMPLES / name).read_text().splitlines()
        imported = [line for line in lines if line.startswith(("import ", "from ")) or "require(" in line]
        assert imported
        assert not [line for line in imported if "hal" in line or "twin" in line]
        assert len(lines) < 100


@pytest.mark.slow
def test_the_node_example_passes(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    shutil.copy(EXAMPLES / "device_server.js", tmp_path)
    install = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline", "zeromq@6", "@msgpack/msgpack@3"]
    try:
        done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not answer within 120 s")
    if done.returncode:
        pytest.skip(f"npm cannot install zeromq and @msgpack/msgpack: {done.stderr.strip().splitlines()[-1:]}")
    with running("node", "device_server.js", cwd=tmp_path) as endpoint:
        assert kept(judged(endpoint)) == {"delay_steps", "reception"}


LEFT_OUT = {
    "version": ('if (protocol, major) != ("isac-twin", 1):', "if False:"),
    "once": ("if seq <= last_seq.get(peer, 0):", "if False:"),
    "stale": ("if born not in (0, BORN):", "if False:"),
    "unknown": ("except (KeyError, TypeError, ValueError) as error:", "except (TypeError, ValueError) as error:"),
    "garbage": ('said = "fault", -1, b"this is not a header and a payload"', "raise"),
    "heartbeats": ("received_ns, time.monotonic_ns()", "0, 0"),
    "clients": (
        "    last_seq[peer] = seq\n",
        "    rows.clear() if len(last_seq) > 1 else None\n    last_seq[peer] = seq\n",
    ),
}


@pytest.mark.parametrize("rule", LEFT_OUT)
def test_what_is_left_out_of_a_server_fails_its_own_rule(rule: str, tmp_path: Path) -> None:
    source = (EXAMPLES / "device_server.py").read_text()
    right, wrong = LEFT_OUT[rule]
    assert source.count(right) == 1
    mutant = tmp_path / "mutant.py"
    mutant.write_text(source.replace(right, wrong))
    with running(sys.executable, mutant) as endpoint:
        assert [v.verdict for v in judged(endpoint, [rule])] == ["fail"]


def test_every_rule_of_the_wire_has_a_mutant() -> None:
    assert set(LEFT_OUT) == set(SESSION_RULES)


def command(*words: str) -> int:
    parser = ArgumentParser()
    device_check.arguments(parser)
    return device_check.run(parser.parse_args(words))


def test_the_command_prints_a_table_and_writes_junit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.xml"
    with running(sys.executable, EXAMPLES / "device_server.py") as endpoint:
        assert command(endpoint, "--fresh", "--junit", str(report), "--latency-ms", "1000") == 0
        out = capsys.readouterr().out
        assert f"conformance of example at {endpoint}" in out
        assert f"{len(RULES) + len(SESSION_RULES) + len(LAST) - 2} passed, 0 failed, 2 skipped" in out
        assert (
            command(endpoint, "--json", "--rules", "latch, dark") == 0
        )  # a second session on the same machine: time went on
        told: Any = json.loads(capsys.readouterr().out)
        assert {v["rule"]: v["verdict"] for v in told["verdicts"]} == {"dark": "skip", "latch": "pass"}
        assert command(endpoint, "--rules", "round_trip", "--latency-ms", "0.001") == 1
        assert "the limit is 0.001 ms" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == (str(len(RULES) + len(SESSION_RULES) + len(LAST)), "0")


def test_a_scenario_s_device_is_checked_here(capsys: pytest.CaptureFixture[str]) -> None:
    smoke = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
    assert command(str(smoke), "--rules", "nameplate,dark,latch,close") == 0
    assert "4 passed, 0 failed, 0 skipped" in capsys.readouterr().out


def test_nobody_there_is_a_failure_that_ci_sees(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    with pytest.raises(LateArrival, match="no answer to 'hello'"):
        command("tcp://127.0.0.1:1", "--timeout-s", "0.2", "--junit", str(report))
    assert ElementTree.parse(report).getroot().get("failures") == "1"
