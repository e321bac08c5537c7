"""Rows beside other people's tools: the same work as near as they do it, the differences said, left out with a reason where one is not installed.

HermesPy, Sionna RT and mosaik run in the interpreter that ``--peers-python`` or ``BENCH_PEERS_PYTHON`` names (this one otherwise), a turn when they are
asked for one; phased-array-modeling and HELICS run in this one.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hal.array import LIGHT_MPS, Upa, steering
from hal.frontend import SITE
from hal.medium import Paths, beam_gains
from tools.bench import lockstep
from tools.bench.peers import hermespy_drop, mosaik_steps, sionna_link
from tools.bench.row import Absent, Row, Side, Timed, Work, apart
from twin.channel.rician import Rician
from twin.link import Link
from twin.physics.constellations import decided
from twin.physics.doubly_selective import hybrid, passage, through
from twin.physics.draws import Draws
from twin.physics.lag_map import lag_map, layout, map_power
from twin.records import Truth

FOLDER = Path(__file__).parent
STEPS = 1000  # of a turn of the lock-steps


def python() -> str:
    """The interpreter that has the peers."""
    return os.environ.get("BENCH_PEERS_PYTHON", sys.executable)


class Child:
    """A peer at work in a process of its own. Raises Absent where it is not installed or does not come up."""

    def __init__(self, script: Any, module: str) -> None:
        found = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
        if subprocess.run([python(), "-c", found], capture_output=True, check=False).returncode:
            raise Absent(f"not installed: {script.DISTRIBUTION} (pip install it, or say --peers-python)")
        name = script.__name__.rsplit(".", 1)[-1]
        self._process = subprocess.Popen(
            [python(), "-W", "ignore", str(FOLDER / "child.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            self.version = str(self._heard()["version"])
        except Absent:
            self.close()
            raise Absent(f"{script.DISTRIBUTION} is installed, but {FOLDER.name}/{name}.py did not come up") from None

    def turn(self) -> Timed:
        """One turn."""
        assert self._process.stdin is not None
        print("turn", file=self._process.stdin, flush=True)
        heard = self._heard()
        return Timed(heard["seconds"], heard["result"])

    def close(self) -> None:
        """Let it go."""
        self._process.kill()
        self._process.communicate()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Absent("the peer ended")
        return json.loads(line)  # type: ignore[no-any-return]


def drop() -> Work:
    """A frame to a user through four taps and back from a target: bits modulated, echo and link laid out, noise, equaliser, bits, range."""
    peer, rng = Child(hermespy_drop, "hermespy"), np.random.default_rng(1)
    rate_hz, size, noise = 400e6, 64 * 16, 1e-4
    link = Link(delay_bins=64, doppler_bins=16, prefix_samples=64, equaliser="one_tap")
    base: Any = _Frame(64, 16)
    late = 2 * hermespy_drop.RANGE_M / LIGHT_MPS * rate_hz

    def white() -> np.ndarray:
        return np.sqrt(noise / 2) * (rng.standard_normal(size) + 1j * rng.standard_normal(size))

    def ours() -> Any:
        bits = rng.random((1, link.frame_bits)) < 0.5
        sent = link.send(bits, base)
        taps = (rng.standard_normal(4) + 1j * rng.standard_normal(4)) * np.array([1.0, 0.4, 0.2, 0.1])
        taps[0] += 2.0
        way = link.passage(np.array([0.0, 1.3, 4.7, 11.2]), np.zeros(4), taps)
        seen = link.receive(way, through(way, sent) + white(), noise, base)
        heard = decided(seen.reshape(1, -1), "qpsk")
        back = passage(np.array([late]), np.zeros(1), np.ones(1), link.roll_off, size, prefix=160.0, doppler_limit=1.0)
        one = np.ones((1, 1))
        echo = hybrid(back, sent[:, None].astype(np.complex64), one, one)[0] + white()
        known = sent[None].astype(np.complex64)
        grid = layout(np.zeros(1), size, (0.0, 160.0), 1e-6)
        power = map_power(lag_map(grid, echo[None].astype(np.complex64), known), link.roll_off)
        return {
            "range_m": grid.delay[np.argmax(power.max(axis=1))] * LIGHT_MPS / (2 * rate_hz),
            "bits": link.frame_bits,
            "wrong": int(np.sum(heard != bits)),
        }

    def difference(mine: Any, theirs: Any) -> float:
        cell_m = LIGHT_MPS / (2 * rate_hz)
        ranges = [abs(one["range_m"] - hermespy_drop.RANGE_M) / cell_m for one in (mine, theirs)]
        return float(max(*ranges, *(100 * one["wrong"] / one["bits"] for one in (mine, theirs))))

    return Work(Side(peer.turn), Side(ours), difference, 1.0, close=peer.close, about=peer.version)


class _Frame:
    """The two sizes that waveforms ask a numerology for."""

    def __init__(self, delay_bins: int, doppler_bins: int) -> None:
        self.delay_bins, self.doppler_bins = delay_bins, doppler_bins


def link() -> Work:
    """Path and channel of a user where it is now."""
    peer = Child(sionna_link, "sionna.rt")
    carrier_hz = sionna_link.CARRIER_HZ
    frequency_hz = carrier_hz + sionna_link.SPACING_HZ * (np.arange(32) - 16)
    array = Upa(sionna_link.SIDE, sionna_link.SIDE).build(carrier_hz, np.array(sionna_link.SITE_M), np.eye(3))
    truth = Truth(
        t_ns=0,
        entity=np.zeros(1, np.int64),
        is_user=np.ones(1, bool),
        position_m=np.array([sionna_link.USER_M]),
        velocity_mps=np.zeros((1, 3)),
        rcs_m2=np.zeros(1),
    )
    channel, now = Rician(rays=0, pressure_pa=1.0, vapour_density_g_m3=0.0), np.zeros(1, np.int64)

    def ours() -> Any:
        paths = channel.down(truth, array, now, carrier_hz, Draws(0))
        direction = paths.departure_m / np.linalg.norm(paths.departure_m, axis=1, keepdims=True)
        turn = np.exp(-2j * np.pi * (frequency_hz - carrier_hz) * paths.delay_s)
        h = (paths.gain[0, 0] * turn)[:, None] * steering(array, direction, frequency_hz)
        return paths.delay_s[0], h[16]

    def difference(mine: Any, theirs: Any) -> float:
        """Delay, size, and direction of the channel vector; theirs counts elements from the top of a column, in single precision: no common phase."""
        delay_s, h = mine
        other = np.array(theirs["h"]) @ np.array([1, 1j])
        upwards = other.reshape(sionna_link.SIDE, -1)[:, ::-1].ravel()
        sizes = np.linalg.norm(h), np.linalg.norm(other)
        alike = abs(np.vdot(h, upwards)) / (sizes[0] * sizes[1])
        return float(max(abs(delay_s / theirs["delay_s"] - 1), abs(sizes[0] / sizes[1] - 1), 1 - alike))

    return Work(Side(peer.turn), Side(ours), difference, 1e-5, close=peer.close, about=peer.version)


def pattern() -> Work:
    """The pattern of 1024 steered elements over the front half space, at the carrier."""
    import phased_array

    carrier_hz, side = 100e9, 32
    array = Upa(side, side).build(carrier_hz, np.zeros(3), np.eye(3))
    wave = 2 * np.pi * carrier_hz / LIGHT_MPS
    x, y = array.position_m[:, 1].copy(), array.position_m[:, 2].copy()  # its plane is x-y, and z is ahead
    weights = phased_array.steering_vector(wave, x, y, theta0_deg=25, phi0_deg=-40)
    theta, phi = np.meshgrid(np.linspace(0, np.pi / 2, 91), np.linspace(-np.pi, np.pi, 181), indexing="ij")
    ahead = np.stack([np.cos(theta), np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)], axis=-1).reshape(-1, 3)
    count = len(ahead)
    rays = Paths(
        carrier_hz=carrier_hz,
        t_ns=np.zeros(1, np.int64),
        source=np.full(count, SITE),
        sink=np.arange(count),
        gain=np.ones((1, count), complex),
        delay_s=np.zeros(count),
        doppler_hz=np.zeros(count),
        departure_m=ahead,
        arrival_m=-ahead,
    )
    held = weights.reshape(1, 1, -1, 1)
    return Work(
        Side(lambda: phased_array.array_factor_vectorized(theta, phi, x, y, weights, wave)),
        Side(lambda: beam_gains(rays, array, held, np.array([carrier_hz])).reshape(theta.shape)),
        apart,
        1e-9,
        about=f"phased-array-modeling {version('phased-array-modeling')}",
    )


def seam(transport: str) -> Timed:
    """Mean wall time of a lock-step with one controller that answers every moment."""
    with redirect_stderr(io.StringIO()):
        taken = lockstep.seam(STEPS, transport)
    return Timed(float(np.mean(taken)), "all")


def federation() -> Work:
    turns = iter(range(1 << 30))

    def theirs() -> Timed:
        taken = lockstep.helics_zmq(STEPS, next(turns))
        return Timed(float(np.mean(taken)), "all" if len(taken) == STEPS else "some")

    return Work(
        Side(theirs),
        Side(partial(seam, "tcp")),
        lambda mine, other: float(mine != other),
        0.0,
        about=f"helics {version('helics')}",
    )


def cosimulation() -> Work:
    peer = Child(mosaik_steps, "mosaik")
    return Work(
        Side(peer.turn),
        Side(partial(seam, "ipc")),
        lambda mine, other: float(other != mosaik_steps.STEPS or mine != "all"),
        0.0,
        close=peer.close,
        about=peer.version,
    )


ROWS = (
    Row(
        "peer.hermespy",
        "a drop: one frame to a user through four taps, its echo from a target, both received",
        "HermesPy",
        drop,
        target=10,
        same="range off the truth in cells, bits in error in percent, both ways",
        note="theirs: single carrier, 256 symbols at 4 samples each, 480 bits, any block of a scene replaceable; ours: ODDM, 1024 samples, "
        "2048 bits, channel known; both equalise by one tap a frequency",
        only="full",
    ),
    Row(
        "peer.sionna",
        "a link update: line of sight, 256 elements, 32 subcarriers",
        "Sionna RT on the CPU",
        link,
        target=100,
        same="delay and channel vector at the carrier",
        note="empty scene: theirs would trace rays through any geometry, ours cannot; theirs has no squint (synthetic array), ours has",
        only="full",
    ),
    Row(
        "peer.phased_array",
        "the pattern of 1024 elements in 91 x 181 directions",
        "phased-array-modeling",
        pattern,
        same="field in every direction",
        needs=("phased_array",),
    ),
    Row(
        "peer.helics",
        "a lock-step with one other process that computes nothing (wall time)",
        "HELICS, zmq core, two federates",
        federation,
        target=1,
        same="every step taken",
        note="theirs: one number each way; ours: a plan and moment out, a command back, over TCP",
        needs=("helics",),
        only="full",
    ),
    Row(
        "peer.mosaik",
        "a lock-step that computes nothing (wall time)",
        "mosaik, two simulators in its own process",
        cosimulation,
        same="every step taken",
        note="theirs crosses no process border; ours does, over a local socket",
        only="full",
    ),
)
