"""Find who transmits, as phased-array laboratories do: steer an ADAR1000 array over all angles, and see where the power comes from.

Nothing here knows the twin: it is ``adi.adar1000_array`` and ``iio`` on an IIO context, a board's or the one of ``twin serve iio``. What a board
does not have is the truth, which is asked for at the end of each sweep and drawn beside what was found.

Usage:  twin serve iio scenarios/phaser.yaml &
        python -m tools.examples.phaser_sweep --out sweep.png
"""

from __future__ import annotations

import argparse
import atexit
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from hal.record import Array, Float

__all__ = ["Laboratory", "Sweep", "direction_deg", "main"]

BEAMWIDTH = 0.886  # half-power width of a line of elements, times wavelength over length (rad)


@dataclass(frozen=True)
class Sweep:
    """Power against the angle steered to, what is found in it, and what the twin says of it."""

    t_s: float
    angle_deg: Float[Array, " angle"]
    power_db: Float[Array, " angle"]  # of the strongest line of the spectrum; 0 is full scale
    found_deg: float
    truth_deg: float


class Laboratory:
    """Boards on a bench: the array, and the receiver behind it."""

    def __init__(self, uri: str, samples: int = 1024) -> None:
        import adi
        import iio

        self.context: Any = iio.Context(uri)
        about = self.context.attrs
        chips = json.loads(about["rx_chips"])
        elements = json.loads(about["rx_chip_elements"])
        self.array: Any = adi.adar1000_array(
            uri=uri,
            chip_ids=chips,
            device_map=[list(range(1, len(chips) + 1))],
            element_map=json.loads(about["rx_element_map"]),
            device_element_map={k + 1: row for k, row in enumerate(elements)},
        )
        self.array.frequency, self.array.element_spacing = float(about["carrier_hz"]), float(about["rx_spacing_m"])
        self.receiver: Any = self.context.find_device("twin-receiver")
        for channel in self.receiver.channels:
            channel.enabled = True
        self.streams = len(self.receiver.channels) // 2
        self.buffer: Any = iio.Buffer(self.receiver, samples)
        self.array.initialize_devices()
        for device in self.array.devices.values():
            device.mode = "rx"
            for channel in device.channels:
                channel.rx_enable = True
        self.array.latch_rx_settings()

    def close(self) -> None:
        """End the buffer: libiio crashes where one outlives its context."""
        self.buffer = None

    @property
    def beamwidth_deg(self) -> float:
        """Half-power width of the beam that looks straight ahead."""
        columns = len(self.array.element_map[0])
        length_m = columns * self.array.element_spacing
        return float(np.rad2deg(BEAMWIDTH * 299792458.0 / self.array.frequency / length_m))

    def power_db(self) -> float:
        """The strongest line in the sum of all channels."""
        self.buffer.refill()
        words = np.frombuffer(self.buffer.read(), np.int16).reshape(-1, self.streams, 2).astype(np.float64)
        signal = (words[..., 0] + 1j * words[..., 1]).sum(axis=1) / 32768
        spectrum = np.abs(np.fft.fft(signal * np.blackman(len(signal)))) / np.blackman(len(signal)).sum()
        return float(20 * np.log10(spectrum.max() + 1e-9))

    def sweep(self, angle_deg: Float[Array, " angle"], who: str) -> Sweep:
        """Steer to each angle and listen."""
        power_db = np.empty(len(angle_deg))
        before = self.truth(who)
        for k, angle in enumerate(angle_deg):
            self.array.steer_rx(angle, 0)
            power_db[k] = self.power_db()
        after, share = self.truth(who), np.argmax(power_db) / (len(angle_deg) - 1)
        t_s, truth_deg = before + (after - before) * share  # when the beam was there
        return Sweep(t_s, angle_deg, power_db, direction_deg(angle_deg, power_db, self.beamwidth_deg), truth_deg)

    def truth(self, who: str) -> Float[Array, " 2"]:
        """Time (s) and azimuth (degrees) of a mover, as the twin says."""
        told = json.loads(self.context.find_device("twin-scene").attrs["truth"].value)
        return np.array([told["t_s"], next(m["azimuth_deg"] for m in told["movers"] if m["name"] == who)])


def direction_deg(angle_deg: Float[Array, " angle"], power_db: Float[Array, " angle"], beamwidth_deg: float) -> float:
    """Where the power peaks: the top of the parabola that fits best within half a beamwidth of the strongest angle.

    The top of a beam is a parabola in decibels; many angles, because the power fades while the beam moves on.
    """
    strongest = angle_deg[np.argmax(power_db)]
    near = np.abs(angle_deg - strongest) <= beamwidth_deg / 2
    if np.count_nonzero(near) < 3:
        return float(strongest)
    bend, slope, _ = np.polyfit(angle_deg[near] - strongest, power_db[near], 2)
    top = -slope / (2 * bend) if bend < 0 else 0.0
    return float(strongest + np.clip(top, -beamwidth_deg / 2, beamwidth_deg / 2))


def draw(sweeps: list[Sweep], beamwidth_deg: float, path: str) -> None:
    """Power against angle of a few sweeps, and directions found against the truth over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    shown = [sweeps[k] for k in np.unique(np.linspace(0, len(sweeps) - 1, 3).round().astype(int))]
    for sweep, colour in zip(shown, ("tab:blue", "tab:green", "tab:orange"), strict=False):
        left.plot(sweep.angle_deg, sweep.power_db, color=colour, label=f"t = {sweep.t_s:.1f} s")
        left.axvline(sweep.truth_deg, ymax=0.85, color=colour, ls=":", lw=1)
    left.set(
        xlabel="steered to (degrees)",
        ylabel="strongest line (dB of full scale)",
        title="power against angle; dotted: truth",
    )
    low, high = left.get_ylim()
    left.set_ylim(low, high + 0.14 * (high - low))  # room for the legend
    left.legend(frameon=False, ncols=3, loc="upper center")
    t_s = [s.t_s for s in sweeps]
    truth = np.array([s.truth_deg for s in sweeps])
    right.fill_between(
        t_s, truth - beamwidth_deg / 2, truth + beamwidth_deg / 2, color="0.9", label="truth ± half a beamwidth"
    )
    right.plot(t_s, truth, color="0.4", lw=1)
    right.plot(t_s, [s.found_deg for s in sweeps], "o", ms=4, color="tab:red", label="found by the sweep")
    right.set(xlabel="scene time (s)", ylabel="azimuth (degrees)", title="who transmits, followed")
    right.legend(frameon=False, loc="upper left")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> int:
    """Sweep, compare, draw; 1 where a direction is more than half a beamwidth from the truth."""
    parser = argparse.ArgumentParser(prog="python -m tools.examples.phaser_sweep", description=__doc__)
    parser.add_argument("--uri", default="ip:127.0.0.1")
    parser.add_argument("--who", default="walker", help="whose direction the twin is asked for (default %(default)s)")
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--step", type=float, default=2.5, help="degrees (default %(default)s)")
    parser.add_argument("--out", help="file of the picture")
    given = parser.parse_args()
    laboratory = Laboratory(given.uri)
    atexit.register(laboratory.close)
    angle_deg = np.arange(-60.0, 60.0 + given.step / 2, given.step)
    sweeps = []
    for _ in range(given.sweeps):
        sweeps.append(sweep := laboratory.sweep(angle_deg, given.who))
        off_deg = sweep.found_deg - sweep.truth_deg
        print(
            f"t = {sweep.t_s:6.2f} s  found {sweep.found_deg:+6.1f}  truth {sweep.truth_deg:+6.1f}  off {off_deg:+5.2f} degrees"
        )
    worst_deg = max(abs(s.found_deg - s.truth_deg) for s in sweeps)
    limit_deg = laboratory.beamwidth_deg / 2
    print(f"worst {worst_deg:.2f} degrees of {len(sweeps)} sweeps; half a beamwidth is {limit_deg:.2f} degrees")
    if given.out is not None:
        draw(sweeps, laboratory.beamwidth_deg, given.out)
    return int(not worst_deg <= limit_deg)


if __name__ == "__main__":
    raise SystemExit(main())
