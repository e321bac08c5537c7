"""What a figure depends on: the machine, versions, and the state of the repository."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["facts"]

PACKAGES = ("numpy", "scipy", "numba", "simpy", "pyzmq", "msgpack", "msgspec", "cvxpy", "torch")


def facts() -> dict[str, Any]:
    """Processor, cores, load, versions, threads and revision; nothing that names the machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else [],
        "system": f"{platform.system()} {platform.machine()}",
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "revision": _revision(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _revision() -> str:
    say = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(say, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip()
