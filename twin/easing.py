"""Less searching for a loop that is late: the parts under control at their cheapest settings."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from twin.scenario import Scenario

__all__ = ["eased"]

# fields of components that say how long a search goes on, and what is enough for a usable answer
ENOUGH = {
    "compare_every": 0,
    "cycles": 1,
    "iterations": 25,
    "passes": 1,
    "peaks": 1,
    "polish_steps": 0,
    "rounds": 1,
    "starts": 1,
    "sweeps": 1,
}


def eased(scenario: Scenario) -> Scenario:
    """The same scenario with searches cut short, of the detector and of every part under control; what is modelled stays as it is."""
    sites = {
        name: replace(
            site,
            control=replace(
                site.control, **{f.name: less(getattr(site.control, f.name)) for f in fields(site.control)}
            ),
        )
        for name, site in scenario.sites.items()
    }
    return replace(scenario, sites=sites, sensing=replace(scenario.sensing, detector=less(scenario.sensing.detector)))


def less(part: Any) -> Any:
    """A component with its efforts at most ``ENOUGH``; anything else as it is."""
    if not is_dataclass(part) or isinstance(part, type):
        return part
    efforts = {f.name: min(getattr(part, f.name), ENOUGH[f.name]) for f in fields(part) if f.name in ENOUGH}
    return replace(part, **efforts)
