"""The command line as a user meets it: real processes, real files, real mistakes."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from twin import record
from twin.__main__ import MODULES, main
from twin.build import run

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "scenarios" / "smoke.yaml"
TWIN = [sys.executable, "-m", "twin"]


def twin(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TWIN, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_help_costs_nothing() -> None:
    heavy = "numpy simpy numba scipy zmq pydantic torch cvxpy matplotlib"
    code = (
        "import sys, twin.__main__ as m\n"
        "try: m.main(['--help'])\nexcept SystemExit: pass\n"
        f"print(sorted(set(sys.modules) & set({heavy.split()!r})))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.rstrip().endswith("[]")
    assert "twin run scenarios/street.yaml" in said.stdout


def test_a_run_leaves_what_it_says(tmp_path: Path) -> None:
    done = twin("run", SMOKE, "--out", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("near", "rate Gbit/s", "Cramer-Rao", "tracks alive", "beams set", "CPU p50", "run directory: mine"):
        assert word in done.stdout
    summary = json.loads((tmp_path / "mine" / "summary.json").read_text())
    assert summary["run"]["subframes"] == 20
    rows = (tmp_path / "mine" / "kpi.csv").read_text().splitlines()
    assert len(rows) == 21
    assert "rate_bps.near" in rows[0]
    topics = {topic for topic, _, _ in record.read(tmp_path / "mine" / "recording.mcap")}
    assert topics >= {"truth.", "bs0.kpi.", "bs0.belief.", "bs0.plan.", "bs0.beam.transmit."}
    again = twin("run", tmp_path / "mine" / "scenario.yaml", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["run"]["hash"] == summary["run"]["hash"]
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["scenario-001"]


def test_a_run_directory_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    assert main(["run", str(SMOKE), "--out", str(tmp_path / "mine")]) == 2
    assert "never overwrites" in capsys.readouterr().err


def test_a_run_that_did_not_start_leaves_no_directory_behind(tmp_path: Path) -> None:
    device = "{kind: remote, endpoint: 'tcp://127.0.0.1:9', timeout_ms: 100}"
    assert main(["run", str(SMOKE), "--set", f"sites.bs0.device={device}", "--out", str(tmp_path / "a")]) == 1
    assert not (tmp_path / "a").exists()


def test_a_user_with_a_slash_in_its_name_is_still_a_user() -> None:
    assert set(run(SMOKE, {"users.0.name": "a/b", "duration_s": 0.02}, write=False).user) == {"a/b", "far"}


@pytest.mark.parametrize(
    "value", ["sites.bs0.power_dbm=4000", "sites.bs0.power_dbm=1e308", "sites.bs0.noise_figure_db=1e300"]
)
def test_absurd_numbers_are_refused_in_words(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(SMOKE), "--set", value]) == 2
    assert value.partition("=")[0] in capsys.readouterr().err


def test_every_problem_at_once_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("carier_ghz: 100\nduration_s: .nan\nsubframe: {blocks: 36}\nsites: {bs0: {}}\n")
    assert main(["check", str(wrong)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{wrong}:1:1: carier_ghz: ")
    assert "'carrier_ghz'" in lines[0]
    assert any(line.startswith(f"{wrong}:2:13: duration_s: ") for line in lines)
    assert any(":3:" in line and "5040 us" in line for line in lines)
    assert main(["run", str(wrong)]) == 2


def test_check_tells_what_the_street_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / "scenarios" / "street.yaml"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["range resolution"]["value"] == pytest.approx(299_792_458 / 2 / 64e6)
    assert {"velocity resolution", "velocity ambiguity", "far field from", "down SNR at the edge"} <= set(facts)


def test_set_replaces_and_a_bad_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(SMOKE), "--set", "duration_s=0.02", "--json", "--out", str(tmp_path / "a")]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["subframes"] == 4
    assert main(["run", str(SMOKE), "--set", "sensing.dwels=1"]) == 2
    assert "sensing.dwels" in capsys.readouterr().err
    assert main(["run", str(SMOKE), "--set", "nonsense"]) == 2
    assert "PATH=VALUE" in capsys.readouterr().err


def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert main(["run", str(SMOKE), "--state", endpoint, "--out", str(tmp_path / "a")]) == 2
    said = capsys.readouterr().err
    assert endpoint in said
    assert "another" in said


def started(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    """A long run, as soon as its recording holds something."""
    process = subprocess.Popen(
        [*TWIN, "run", str(SMOKE), "--duration", "1000", "--out", "long", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    table = tmp_path / "long" / "recording.mcap"
    while not (table.exists() and table.stat().st_size > 50_000):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        os.sched_yield()
    return process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_a_whole_run_of_what_ran(tmp_path: Path, how: signal.Signals) -> None:
    process = started(tmp_path)
    process.send_signal(how)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "INTERRUPTED" in said
    summary = json.loads((tmp_path / "long" / "summary.json").read_text())
    ran = summary["run"]["subframes"]
    assert summary["run"]["interrupted"]
    assert sum(topic == "bs0.kpi." for topic, _, _ in record.read(tmp_path / "long" / "recording.mcap")) == ran
    assert len((tmp_path / "long" / "kpi.csv").read_text().splitlines()) == ran + 1


def test_a_killed_run_is_recovered(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    done = twin("record", "recover", "long/recording.mcap", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = twin("record", "info", "long/recording.recovered.mcap", "--json", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    kept = [t for topic, t, _ in record.read(tmp_path / "long" / "recording.recovered.mcap") if topic == "bs0.kpi."]
    assert kept == [5_000_000 * k for k in range(len(kept))]
    assert kept


def test_the_machine_in_a_process_of_its_own_gives_the_same_run(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [*TWIN, "serve", "device", str(SMOKE), "--endpoint", "tcp://127.0.0.1:0"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert server.stdout is not None
        endpoint = server.stdout.readline().split()[-1]
        far = run(
            SMOKE, {"sites.bs0.device": {"kind": "remote", "endpoint": endpoint, "timeout_ms": 20_000}}, write=False
        )
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode == 0
    assert far.summary["run"]["hash"] == run(SMOKE, write=False).summary["run"]["hash"]


def test_a_machine_that_is_not_there_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = "{kind: remote, endpoint: 'tcp://127.0.0.1:9', timeout_ms: 200}"
    assert main(["run", str(SMOKE), "--set", f"sites.bs0.device={device}", "--out", str(tmp_path / "a")]) == 1
    assert "tcp://127.0.0.1:9" in capsys.readouterr().err


def test_a_full_disk_ends_in_words_and_keeps_what_ran(tmp_path: Path) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))  # as a full disk, for each file

    words = [*TWIN, "run", str(SMOKE), "--duration", "3", "--out", "full"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, preexec_fn=small)
    assert done.returncode == 1
    assert "full/kpi.csv" in done.stderr
    assert "Traceback" not in done.stderr
    ran = json.loads((tmp_path / "full" / "summary.json").read_text())["run"]["subframes"]
    kept = [t for topic, t, _ in record.read(tmp_path / "full" / "recording.mcap") if topic == "bs0.kpi."]
    assert kept == [5_000_000 * k for k in range(len(kept))]
    assert 0 < len(kept) <= ran


def test_a_broken_expectation_fails_the_run_with_line_time_and_value(tmp_path: Path) -> None:
    hopeful = tmp_path / "hopeful.yaml"
    hopeful.write_text(
        SMOKE.read_text() + "expect:\n  - { kind: rate, at_least_gbps: 1000, after_ms: 50 }\n  - { kind: readback }\n"
    )
    done = twin("run", hopeful, "--junit", "said.xml", "--no-report", cwd=tmp_path)
    assert done.returncode == 1
    line = 1 + hopeful.read_text().splitlines().index("  - { kind: rate, at_least_gbps: 1000, after_ms: 50 }")
    assert f"hopeful.yaml:{line}: expect: " in done.stderr
    said = ElementTree.parse(tmp_path / "said.xml").getroot().find("testsuite")
    assert said is not None
    assert (said.get("tests"), said.get("failures")) == ("2", "1")


def test_the_simulated_machine_conforms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "check", str(SMOKE), "--json"]) == 0
    assert '"fail"' not in capsys.readouterr().out


def test_every_command_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["run"], ["check"], ["schema"], ["serve", "device"], *(name.split() for name in MODULES)):
        with pytest.raises(SystemExit) as left:
            main([*words, "--help"])
        assert left.value.code == 0
        assert len(capsys.readouterr().out.splitlines()) > 3


def test_schema_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "sites" in schema["properties"]
