"""The plug-in: the same test file passes on a simulated machine and on one behind a socket, and says so when it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hal.devices.remote  # noqa: F401
import twin.build
import twin.scenario  # noqa: F401 - pytester forgets modules it did not find here, and NumPy loads only once

pytest_plugins = ["pytester"]

MACHINE = Path(__file__).parents[1] / "hal" / "devices" / "machine.py"
TEAM = """
import numpy as np
from hal.errors import Misuse
from hal.frontend import Beam, Frontend
import pytest

def beam(spec, phase_rad):
    network = spec.transmit.network
    chains, elements = network.wired.shape
    return Beam(half="transmit", slot=np.array([0]), delay_s=np.zeros((1, chains, network.lines)),
                phase_rad=np.full((1, chains, elements), phase_rad), amplitude=np.ones((1, chains, elements)))

@pytest.mark.parametrize("phase_rad", [0.1, 0.2])
def test_beam_is_taken(twin_device, twin_start_ns, phase_rad):
    assert isinstance(twin_device, Frontend)
    report = twin_device.set_beam(beam(twin_device.spec, phase_rad), twin_start_ns)
    assert report.effective_ns >= twin_start_ns + twin_device.spec.command_latency_ns
    assert abs(report.readback.phase_rad - phase_rad).max() <= np.pi / 64 + 1e-9

def test_nonsense_is_refused(twin_device, twin_start_ns):
    with pytest.raises(Misuse):
        twin_device.set_beam(beam(twin_device.spec, float("nan")), twin_start_ns)

def test_name(twin_device):
    print("tested", twin_device.spec.name, twin_device.spec.transmit.network.wired.shape)
"""


@pytest.fixture
def team(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(TEAM)
    return pytester


def run(team: pytest.Pytester, *options: str) -> pytest.RunResult:
    return team.runpytest_inprocess("-p", "twin.pytest_plugin", "-s", "-p", "no:cacheprovider", *options)


@pytest.fixture
def endpoint() -> Iterator[str]:
    program = subprocess.Popen([sys.executable, str(MACHINE)], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    yield program.stdout.readline().strip()
    program.kill()
    program.wait()
    program.stdout.close()


def test_without_options_a_default_site_is_simulated(team: pytest.Pytester) -> None:
    result = run(team)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*tested site (1, 256)*"])


def test_a_scenario_s_device(team: pytest.Pytester) -> None:
    smoke = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
    result = run(team, f"--twin-scenario={smoke}", "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["twin: simulated from *smoke.yaml", "*tested bs0 (1, 64)*"])


def test_a_machine_behind_a_socket_twice_in_a_row(team: pytest.Pytester, endpoint: str) -> None:
    for _ in range(2):
        result = run(team, f"--twin-device={endpoint}")
        result.assert_outcomes(passed=4)
        result.stdout.fnmatch_lines(["*tested small (1, 64)*"])


def test_the_ini_file_names_it_too_and_another_machine_is_refused(team: pytest.Pytester, endpoint: str) -> None:
    smoke = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
    team.makeini(f"[pytest]\ntwin_device = {endpoint}\ntwin_scenario = {smoke}\n")
    result = run(team)
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*its nameplate differs from the scenario's in spec.name*"])


def test_nobody_there_is_an_error_in_words(team: pytest.Pytester) -> None:
    result = team.runpytest_inprocess("-p", "twin.pytest_plugin", "--twin-device=nonsense")
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*endpoint = 'nonsense'*write it as tcp://*"])
