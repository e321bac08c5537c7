"""The doctor: what is well is told apart from what is not, and what is not comes with what to do."""

import argparse
import json
import socket
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin import doctor
from twin.bus import ZmqBus, control_beside
from twin.doctor import Finding, satisfied


@pytest.mark.parametrize(
    ("version", "spec", "fits"),
    [
        ("2.6.0", ">=2.6,<2.14", True),
        ("2.13.0+cpu", ">=2.6,<2.14", True),
        ("2.14", ">=2.6,<2.14", False),
        ("2.5.9", ">=2.6,<2.14", False),
        ("10.0", ">=9.2", True),  # not by letters: "10" < "9"
        ("26", ">=26", True),
        ("26.0.0", "==26", True),
        ("1.4.7", "~=1.4.2", True),
        ("1.5.0", "~=1.4.2", False),
        ("1.9", "~=1.4", True),
        ("2.0", "~=1.4", False),
        ("3.1.4", "==3.1.*", True),
        ("3.2", "==3.1.*", False),
        ("3.2", "!=3.1.*", True),
        ("1.0", ">1.0", False),
        ("2.0rc1", ">=2.0", True),  # by its numbers: said so in the docstring
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_as_packages_mean_them(version, spec, fits):
    assert satisfied(version, spec) is fits


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_at_least_and_below_leave_nothing_between(have, want):
    version, bound = (".".join(map(str, numbers)) for numbers in (have, want))
    assert satisfied(version, f">={bound}") != satisfied(version, f"<{bound}")
    pad = [0] * 4
    assert satisfied(version, f">={bound}") == ((have + pad)[:4] >= (want + pad)[:4])


def test_requirements_are_read_as_metadata_writes_them():
    assert doctor.required("numpy>=2.0") == ("numpy", ">=2.0", "")
    assert doctor.required('torch<2.14,>=2.6; extra == "learn"') == ("torch", "<2.14,>=2.6", "learn")
    assert doctor.required("ruamel.yaml (>=0.18) ; extra == 'x-y'") == ("ruamel.yaml", ">=0.18", "x-y")
    assert doctor.required("nicegui[native]>=3") == ("nicegui", ">=3", "")


def test_missing_and_old_packages_are_told_apart():
    there = {"numpy": "1.26.4", "zmq": "26.1", "torch": "2.7"}

    def version(name):
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    requires = [
        "numpy>=2.0",
        "zmq>=26",
        "rich>=13",
        'torch>=2.6; extra == "learn"',
        'dash>=1; extra == "dash"',
        'pytest; extra == "test"',
    ]
    python, base, learn, dash = doctor.packages(requires, version, (3, 10, 2), ">=3.11")
    assert python.status == "fail"
    assert "asked for >=3.11" in python.found
    assert base == Finding("packages", "fail", "missing: rich; numpy 1.26.4 is not >=2.0", base.advice)
    assert learn.status == "ok"
    assert (dash.status, "isac-twin[dash]" in dash.advice) == ("warn", True)  # an extra is no duty


def test_this_installation_meets_its_own_requirements():
    found = {one.name: one.status for one in doctor.packages()}
    assert (found["isac-twin"], found["Python"], found["packages"]) == ("ok", "ok", "ok")
    assert {"packages for learn", "packages for dash", "packages for sweep"} <= found.keys()
    assert "packages for test" not in found


def test_default_ports_are_the_ones_the_twin_uses():
    from inspect import signature

    state = signature(ZmqBus).parameters["state"].default
    assert [f"tcp://127.0.0.1:{port}" for port in doctor.PORTS][:2] == [state, control_beside(state)]


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (found,) = doctor.ports({port: "state"})
        assert found.status == "warn"
        assert str(port) in found.found
        assert "twin watch" in found.advice
    (found,) = doctor.ports({port: "state"})
    assert found.status == "ok"


def test_a_twin_that_runs_takes_its_ports():
    with ZmqBus("r", "tcp://127.0.0.1:0") as bus:
        ports = {int(endpoint.rpartition(":")[2]): endpoint for endpoint in (bus.state, bus.control)}
        (found,) = doctor.ports(ports)
        assert found.found.count("tcp://") == 2


def test_threads_above_one_are_told():
    assert doctor.threads({"OMP_NUM_THREADS": "1"}, 2).status == "ok"
    assert doctor.threads({}, 2).status == "ok"
    found = doctor.threads({"OPENBLAS_NUM_THREADS": "8"}, 2)
    assert (found.status, found.found) == ("warn", "OPENBLAS_NUM_THREADS=8")
    assert doctor.threads({}, 1).status == "warn"


def test_late_sleeps_are_measured_and_told():
    class Time:
        now_ns, slept = 0, 0

        def count(self):
            return self.now_ns

        def sleep(self, seconds):
            self.slept += 1
            self.now_ns += round(seconds * 1e9) + (4_000_000 if self.slept % 10 == 0 else 50_000)

    time = Time()
    late = doctor.naps(time.count, time.sleep)
    assert late[0] == pytest.approx(0.05)
    assert late[-1] == pytest.approx(4.0)
    assert doctor.sleeping(late).status == "warn"
    assert "0.05 ms late, 99 % within 4.00 ms" in doctor.sleeping(late).found
    assert doctor.sleeping([0.1] * 100).status == "ok"
    assert doctor.sleeping([0.1] * 99 + [50.0]).status == "ok"  # one in a hundred is no reason to warn


def test_a_coarse_clock_is_told():
    reads = iter(range(0, 10**12, 1_000_000))
    step = doctor.steps(lambda: next(reads) // 16_000_000 * 16_000_000, tries=3)
    assert step == 16_000_000
    assert doctor.clock(0.016, step).status == "warn"
    assert doctor.clock(1e-9, 60).status == "ok"


def test_folders_that_cannot_be_written_are_told(tmp_path, monkeypatch):
    assert doctor.disk(tmp_path).status in ("ok", "warn")
    assert not (tmp_path / "runs").exists()  # looked at, not made
    monkeypatch.setattr(doctor, "writable", lambda folder: False)  # root may write anywhere
    assert doctor.disk(tmp_path).status == "fail"
    found = doctor.cache({"NUMBA_CACHE_DIR": str(tmp_path)}, tmp_path)
    assert (found.status, found.found) == ("warn", f"{tmp_path} cannot be written")


def test_a_file_in_the_way_is_not_writable(tmp_path):
    (tmp_path / "runs").write_text("")
    assert not doctor.writable(tmp_path / "runs")


@pytest.mark.parametrize(("free", "status"), [(1e8, "fail"), (1e9, "warn"), (1e11, "ok")])
def test_room_on_the_disk(tmp_path, monkeypatch, free, status):
    from types import SimpleNamespace

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    assert doctor.disk(tmp_path).status == status


def test_components_all_load_and_a_broken_one_is_named(monkeypatch):
    import twin.registry

    assert doctor.components().status == "ok"
    told = twin.registry.describe
    monkeypatch.setattr(
        twin.registry, "describe", lambda package: (*told(package), ("odd", "broken: ImportError: no"))[-1:]
    )
    found = doctor.components()
    assert found.status == "fail"
    assert "twin.planning.odd broken: ImportError: no" in found.found


@pytest.mark.parametrize("status", ["ok", "warn", "fail"])
def test_the_exit_status_is_one_only_for_failures(monkeypatch, capsys, status):
    monkeypatch.setattr(
        doctor, "examine", lambda: iter([Finding("a", "ok", "fine"), Finding("b", status, "found [x]", "do this")])
    )
    assert doctor.run(argparse.Namespace(json=False)) == (status == "fail")
    shown = capsys.readouterr().out
    assert [status, "b", "found", "[x]"] in [line.split() for line in shown.splitlines()]
    assert "do this" in shown
    assert doctor.run(argparse.Namespace(json=True)) == (status == "fail")
    assert json.loads(capsys.readouterr().out)[1]["status"] == status
