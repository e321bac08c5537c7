"""The example controllers steer a run, each where its toolchain is present, and use none of our code."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twin.build import Run, run
from twin.record import read

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tools" / "examples"


def steered(tmp_path: Path, name: str, *command: Any) -> tuple[Run, str]:
    """A lock-step run that waits for the controller ``name``, and what the controller printed."""
    endpoint = f"ipc://{tmp_path}/state"
    given = {
        "bus.state": endpoint,
        "clock.mode": "lockstep",
        "controllers.wait_for": [name],
        "sensing.fidelity": "bound",
    }
    done: list[Run] = []
    thread = threading.Thread(
        target=lambda: done.append(run(ROOT / "scenarios" / "smoke.yaml", given, out=tmp_path / "run"))
    )
    thread.start()
    said = subprocess.run([*map(str, command), endpoint + ".control"], capture_output=True, text=True, timeout=90)
    thread.join(60)
    assert not thread.is_alive()
    assert said.returncode == 0, said.stdout + said.stderr
    last = list(read(tmp_path / "run" / "recording.mcap", "bs0.control."))[-1][2]
    assert (last["plan"], last["answered"], last["refused"], last["dropped"]) == (name, 20, 0, 0)
    return done[0], said.stdout


def test_the_python_one_serves_the_nearest(tmp_path: Path) -> None:
    done, said = steered(tmp_path, "nearest", sys.executable, EXAMPLES / "controller.py")
    assert "the run is over: 20 moments answered, the plan was last set by nearest" in said
    near, far = (done.kpi.served_blocks[-4:, done.user.index(name)] for name in ("near", "far"))
    assert near.min() > 20
    assert far.max() == 0


def test_the_c_one_silences_the_last_user(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    made = tmp_path / "controller"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-value"]
    built = subprocess.run(
        [compiler, *flags, "-o", str(made), str(EXAMPLES / "controller.c"), "-lzmq", "-lmsgpackc"],
        capture_output=True,
        text=True,
    )
    if "zmq.h" in built.stderr or "msgpack.h" in built.stderr:
        pytest.skip("libzmq3-dev and libmsgpack-dev are not installed")
    assert built.returncode == 0, built.stderr
    done, said = steered(tmp_path, "silencer", made)
    assert "the run is over: 20 moments answered" in said
    assert done.kpi.served_blocks[:, 1].max() == 0
    assert done.kpi.served_blocks[-5:, 0].min() > 10


@pytest.mark.slow
def test_the_node_one_takes_turns(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    shutil.copy(EXAMPLES / "controller.js", tmp_path)
    install = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline", "zeromq@6", "@msgpack/msgpack@3"]
    try:
        ready = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not answer within 120 s")
    if ready.returncode:
        pytest.skip(f"npm cannot install zeromq and @msgpack/msgpack: {ready.stderr.strip().splitlines()[-1:]}")
    done, said = steered(tmp_path, "turns", "node", tmp_path / "controller.js")
    changes = np.count_nonzero(np.diff(done.kpi.block_rate_bps[-1] > 0, axis=0)[:, 0])
    assert 4 < changes < 12  # every four blocks, where the built-in chain changes at each
    assert "20 moments answered, the plan was last set by turns" in said


def test_the_examples_use_none_of_our_code() -> None:
    for name in ("controller.py", "controller.js", "controller.c"):
        lines = (EXAMPLES / name).read_text().splitlines()
        used = [li for li in lines if li.startswith(("import ", "from ", "#include")) or "require(" in li]
        assert used
        assert not [line for line in used if "hal" in line or "twin" in line or "numpy" in line]
