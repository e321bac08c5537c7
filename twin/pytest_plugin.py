"""pytest plug-in: a team's own tests on a machine, simulated or real, without a change (``--twin-device``, ``--twin-scenario``)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hal.frontend import Frontend

__all__ = ["pytest_addoption", "pytest_report_header", "twin_device", "twin_start_ns"]

START_NS = 10**9


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options; each may stand in the ini file too, as ``twin_device`` and ``twin_scenario``."""
    group = parser.getgroup("isac-twin", "isac-twin: the machine under test")
    group.addoption("--twin-device", metavar="ENDPOINT", help="test the machine that is served there (tcp://HOST:PORT)")
    group.addoption(
        "--twin-scenario",
        metavar="FILE",
        help="test this scenario's device; with --twin-device, refuse a machine with another nameplate",
    )
    parser.addini("twin_device", "endpoint of the machine under test", default="")
    parser.addini("twin_scenario", "scenario whose device is under test", default="")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which machine is tested, where one was chosen."""
    endpoint, scenario = _option(config, "twin_device"), _option(config, "twin_scenario")
    if not (endpoint or scenario):
        return None
    return f"twin: machine at {endpoint}" if endpoint else f"twin: simulated from {scenario}"


@pytest.fixture
def twin_device(request: pytest.FixtureRequest) -> Iterator[Frontend]:
    """A ``hal.frontend.Frontend``, opened for this test: the machine of ``--twin-device``, or else a simulated one, all dark.

    What is simulated is ``--twin-scenario``'s device, or a default site's. A real machine keeps the beams of the test before.
    """
    frontend = _opened(_option(request.config, "twin_device"), _option(request.config, "twin_scenario"))
    yield frontend
    frontend.close()


@pytest.fixture
def twin_start_ns(request: pytest.FixtureRequest) -> int:
    """A time for the test's first command, later than any the machine has heard; the same in every run of a simulated one."""
    return time.monotonic_ns() if _option(request.config, "twin_device") else START_NS


def _option(config: pytest.Config, name: str) -> str:
    return str(config.getoption(f"--{name.replace('_', '-')}") or config.getini(name) or "")


def _opened(endpoint: str, file: str) -> Frontend:
    from twin.scenario import Scenario, Site, load

    scenario: Any = load(file) if file else Scenario(sites={"site": Site()})
    if endpoint:
        from hal.devices.remote import Remote
        from twin.scenario import frontend_spec

        (site,) = scenario.sites
        return Remote(endpoint, timeout_s=10.0, warn_s=5.0).open(frontend_spec(scenario, site) if file else None)
    from twin.build import open_frontend

    return open_frontend(scenario)
