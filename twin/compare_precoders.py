"""Precoders side by side on the same draws or the same scenario: rate, Cramer-Rao bound, dual-functional gain, correlation and time of each scheme."""

from __future__ import annotations

import csv
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hal.array import Upa, direction_from, steering, steering_gradient
from hal.errors import Misuse
from hal.frontend import HalfSpec
from hal.network import Network, quantise
from hal.record import Array, Float
from twin.physics.boundary import dual_functional_gain
from twin.physics.digital import DigitalBound, digital_bound
from twin.physics.fisher import Convention, Reflection
from twin.precoding import Design, Precoder, Problem
from twin.precoding._scene import Scene, scene
from twin.precoding._search import delay_divergence
from twin.precoding.cbs import Cbs
from twin.precoding.delay_phase import DelayPhase
from twin.precoding.direct import Direct
from twin.precoding.no_ttd import NoTtd
from twin.precoding.sa_opt import SaOpt
from twin.precoding.sensing_dedicated import SensingDedicated

__all__ = [
    "SCHEMES",
    "Score",
    "Setup",
    "arguments",
    "compare",
    "digital",
    "draw",
    "interval_db",
    "met",
    "run",
    "scored",
    "side_by_side",
]

_ROWS = ("user_direction", "user_gain", "target_direction", "target_gain")
ETA = 256.0  # of eq (18) as the paper would set it: N_r, where both sides weigh about alike

SCHEMES: Mapping[str, Precoder] = {
    "comm": DelayPhase(),
    "sensing (21)": SensingDedicated(power="eq21"),
    "sensing (20)": SensingDedicated(),
    "CBS printed (24)": Cbs(power="eq21", fit="printed"),
    "CBS (21)": Cbs(power="eq21"),
    "CBS (20)": Cbs(),
    "SA eq19 (21)": SaOpt(update="eq19", power="eq21", eta=ETA, balanced=False),
    "SA amp (20)": SaOpt(eta=ETA, balanced=False),
    "no TTD eq19 (21)": NoTtd(update="eq19", power="eq21", eta=ETA, balanced=False),
    "no TTD amp (20)": NoTtd(eta=ETA, balanced=False),
    "direct 1": Direct(rate_weight=1.07),  # 0.1 and 0.4 nats a bit at 10 dB, where a matched beam carries 10.7 bits
    "direct 4": Direct(rate_weight=4.28),
}


@dataclass(frozen=True)
class Setup:
    """Where random draws come from: papers/000 section 6.1, angles in a sector that keeps its Fisher information away from poles and endfire."""

    carrier_hz: float = 100e9
    bandwidth_hz: float = 8e9
    subcarriers: int = 32
    columns: int = 16
    rows: int = 16
    delay_lines: tuple[int, int] = (8, 8)
    delay_bits: int = 4
    delay_range_s: float = 100e-12
    phase_bits: int = 0  # eq (18a) bounds the modulus only
    targets: int = 3
    snr_db: float = 10.0  # P_t over the noise of one subcarrier, which is 1 W here
    msia_rad: float = 0.1  # exactly: root mean square of the 2K differences of angle to the user
    sigma_beta: float = 1.0
    sigma_alpha: float = 0.6
    longest_s: float = 100e-9  # tau_max
    elevation_rad: float = np.pi / 4  # theta in 45 .. 135 deg
    azimuth_rad: float = np.pi / 3  # phi in -60 .. 60 deg


@dataclass(frozen=True)
class Score:
    """What one design is worth on its draw, through the quantised read-back."""

    rate: float  # bits a symbol over all subcarriers, eq (7)
    crb: float  # rad^2, trace over all angles, eq (11); infinite where singular
    divergence: float  # KL of the beamspace distributions; eq (16) is its inverse
    clipped: int
    time_s: float  # CPU time of the design


def draw(seed: int, setup: Setup = Setup()) -> Problem:
    """One user, K targets and their channels; the same seed is the same draw whatever the SNR."""
    for name in ("msia_rad", "sigma_beta", "sigma_alpha", "bandwidth_hz", "carrier_hz"):
        if not getattr(setup, name) > 0:
            raise Misuse(f"{name} = {getattr(setup, name)!r}: must be > 0")
    for name in ("azimuth_rad", "elevation_rad"):
        if not 0 < getattr(setup, name) < np.pi / 2:
            raise Misuse(
                f"{name} = {getattr(setup, name)!r}: must lie between 0 and pi/2; at the array's plane and pole angles have no bound"
            )
    if not setup.targets >= 1:
        raise Misuse(f"targets = {setup.targets!r}: must be at least 1; a beam for the user alone is delay_phase")
    rng = np.random.Generator(np.random.Philox(key=seed))
    m = np.arange(setup.subcarriers)
    frequency_hz = setup.carrier_hz + setup.bandwidth_hz / setup.subcarriers * (m - (setup.subcarriers - 1) / 2)
    array = Upa(setup.columns, setup.rows).build(setup.carrier_hz, np.zeros(3), np.eye(3))
    network = Network(
        delay_lines=setup.delay_lines,
        delay_bits=setup.delay_bits,
        delay_range_s=setup.delay_range_s,
        phase_bits=setup.phase_bits,
    ).build(setup.columns, setup.rows)
    for _ in range(10_000):
        user = rng.uniform(-1, 1, 2) * (setup.azimuth_rad, setup.elevation_rad)
        away = rng.normal(size=(setup.targets, 2))
        place = user + away * setup.msia_rad * np.sqrt(2 * setup.targets / np.sum(away**2))
        if np.all(np.abs(place) <= (setup.azimuth_rad, setup.elevation_rad)):
            break
    else:
        raise Misuse(
            f"msia_rad = {setup.msia_rad!r}: no draw keeps the targets inside the sector; lower it or widen the sector"
        )
    elements = setup.columns * setup.rows
    beta = setup.sigma_beta * complex(*rng.normal(size=2)) / np.sqrt(2)
    turn = np.exp(-2j * np.pi * frequency_hz * rng.uniform(0, setup.longest_s))
    alpha = (
        setup.sigma_alpha
        * rng.normal(size=(setup.targets, setup.subcarriers, 2)).view(np.complex128)[..., 0]
        / np.sqrt(2)
    )
    return Problem(
        half=HalfSpec(array=array, network=network, memory_slots=1),
        frequency_hz=frequency_hz,
        user_direction=direction_from(user[:1], user[1:]),
        user_gain=(beta * turn / np.sqrt(elements))[None],
        target_direction=direction_from(place[:, 0], place[:, 1])[None],
        target_gain=(alpha / elements)[None],
        power_w=10 ** (setup.snr_db / 10),
        noise_w=1.0,
    )


def row_of(problem: Problem, reflection: Reflection = "known", convention: Convention = "consistent") -> Scene:
    """The first row of a problem, which must have a user and a target."""
    found = scene(problem, 0, reflection, convention)
    if found is None:
        raise Misuse("problem: its first row has no user gain or no target to light, so there is nothing to compare")
    return found


def scored(
    problem: Problem,
    design: Design,
    time_s: float = float("nan"),
    reflection: Reflection = "known",
    convention: Convention = "consistent",
    dictionary: int = 32,
) -> Score:
    """Rate, bound and divergence of the first row's beam as the machine would make it."""
    row, network = row_of(problem, reflection, convention), problem.half.network
    delay_s, phase_rad, _, clipped = quantise(network, design.delay_s, design.phase_rad, design.amplitude)
    lines, phases = (
        delay_s[0].reshape(-1)[: row.lines],
        phase_rad[0, np.argmax(network.wired, axis=0), np.arange(len(row.line))],
    )
    response = row.response(lines, phases)
    grid = (max(dictionary, row.array.columns), max(dictionary, row.array.rows))
    power_w = design.power_w[0]
    return Score(
        rate=row.rate(response, power_w),
        crb=row.crb(response, power_w),
        divergence=delay_divergence(row, lines, grid),
        clipped=clipped,
        time_s=time_s,
    )


def digital(problem: Problem, rate_weight: float, reflection: Reflection = "known") -> tuple[DigitalBound, float]:
    """The fully digital bound on the first row's ``direct`` utility, and that utility's weight a bit."""
    row = row_of(problem, reflection)
    weight = Direct(rate_weight=rate_weight).utility(row).weight
    at = (row.target_direction[None], row.frequency_hz[:, None])
    jet = np.stack([steering(row.array, *at), *steering_gradient(row.array, *at)], axis=2)
    return digital_bound(row.user_row, jet, row.gram, row.weight, row.power_w, row.noise_w, weight), weight


def compare(
    setup: Setup,
    seeds: Sequence[int],
    schemes: Mapping[str, Precoder] = SCHEMES,
    tell: Callable[[int, int], None] = lambda done, total: None,
    reflection: Reflection = "known",
) -> dict[str, list[Score]]:
    """Every scheme on every draw, in turn; ``tell(done, total)`` after each draw. Compiles what it needs first, so that times are of designs alone."""
    return side_by_side([draw(seed, setup) for seed in seeds], schemes, tell, reflection)


def side_by_side(
    problems: Sequence[Problem],
    schemes: Mapping[str, Precoder],
    tell: Callable[[int, int], None] = lambda done, total: None,
    reflection: Reflection = "known",
) -> dict[str, list[Score]]:
    """As ``compare``, of problems at hand."""
    for precoder in schemes.values() if problems else ():
        precoder.design(problems[0])
    found: dict[str, list[Score]] = {name: [] for name in schemes}
    for done, problem in enumerate(problems):
        for name, precoder in schemes.items():
            began = time.process_time()
            design = precoder.design(problem)
            found[name].append(scored(problem, design, time.process_time() - began, reflection))
        tell(done + 1, len(problems))
    return found


@dataclass(frozen=True)
class _Overheard:
    """A precoder that keeps what it is asked."""

    inner: Precoder
    asked: list[Problem]

    def design(self, problem: Problem) -> Design:
        self.asked.append(problem)
        return self.inner.design(problem)


def met(file: str | Path, sets: Mapping[str, Any], subframes: int, count: int) -> list[Problem]:
    """``count`` problems of one row that a scenario's own precoder was asked within so many subframes, evenly spread: believed geometry, not the true one.

    Rows without a user, or with no other track to light, are nothing to compare and left out. Raises Misuse if that leaves none.
    """
    from twin.build import Twin
    from twin.scenario import load

    asked: list[Problem] = []
    scenario = load(file, sets)
    with Twin(replace(scenario, bus=type(scenario.bus)(), expect=())) as twin:
        twin.chain.parts = replace(twin.chain.parts, precoder=_Overheard(twin.chain.parts.precoder, asked))
        twin.play(split=False, progress=False, last=min(subframes, scenario.subframes))
    rows = [
        replace(problem, previous=None, **{name: getattr(problem, name)[row : row + 1] for name in _ROWS})
        for problem in asked
        for row in range(len(problem.user_direction))
        if np.any(problem.target_gain[row] != 0) and scene(problem, row) is not None
    ]
    if not rows:
        raise Misuse(
            f"{file}: in {min(subframes, scenario.subframes)} subframes no data beam had a located user and another confirmed track to light; "
            "give more --subframes, or a scenario with targets near its users"
        )
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]


def balanced(schemes: Mapping[str, Precoder]) -> dict[str, Precoder]:
    """The same schemes, eta counted from equal mean gains of user and targets: where these are of places, eq (18) as it stands sees users alone."""
    return {n: replace(p, eta=1.0, balanced=True) if isinstance(p, SaOpt | NoTtd) else p for n, p in schemes.items()}


def interval_db(ratio: Float[Array, " draw"]) -> tuple[float, float]:
    """Mean of ``10 log10 ratio`` over paired draws and half the width of its 95 % confidence interval (Student's t); infinite ratios left out."""
    from scipy.stats import t

    db = 10 * np.log10(np.asarray(ratio, float))
    db = db[np.isfinite(db)]
    if len(db) < 2:
        return (float(db[0]) if len(db) else float("nan")), float("nan")
    return float(db.mean()), float(t.ppf(0.975, len(db) - 1) * db.std(ddof=1) / np.sqrt(len(db)))


def arguments(parser: ArgumentParser) -> None:
    """What ``twin compare precoders`` takes."""
    standard = Setup()
    parser.description = (
        "Design beams with every scheme, for the same random draws or for what a scenario's own precoder is asked, "
        "and print what each is worth."
    )
    parser.epilog = "Examples: twin compare precoders --draws 24 --msia 0.2; twin compare precoders scenarios/street.yaml --plot street.png"
    parser.add_argument(
        "scenario",
        nargs="?",
        type=Path,
        metavar="SCENARIO.yaml",
        help="take users, targets and channels, as believed, from this scenario; nothing: random draws",
    )
    parser.add_argument(
        "--subframes", type=int, default=100, help="of the scenario to take problems from (default %(default)s)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", dest="sets", help="replace a value of the scenario"
    )
    parser.add_argument(
        "--draws", type=int, default=24, help="draws, or problems of the scenario (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first draw")
    parser.add_argument("--scheme", action="append", choices=tuple(SCHEMES), help="only these; may be given again")
    parser.add_argument(
        "--reference", default="CBS (21)", choices=tuple(SCHEMES), help="whose CRB others are compared with"
    )
    parser.add_argument("--snr-db", type=float, default=standard.snr_db)
    parser.add_argument(
        "--msia", type=float, default=standard.msia_rad, metavar="RAD", help="spread of the targets about the user"
    )
    parser.add_argument("--targets", type=int, default=standard.targets)
    parser.add_argument("--carrier-ghz", type=float, default=standard.carrier_hz / 1e9)
    parser.add_argument("--bandwidth-ghz", type=float, default=standard.bandwidth_hz / 1e9)
    parser.add_argument(
        "--array", type=int, default=standard.columns, metavar="N", help="N x N elements, a delay line for each 2 x 2"
    )
    parser.add_argument("--reflection", choices=("known", "unknown"), default="known")
    parser.add_argument("--csv", type=Path, help="write a row for each draw and scheme")
    parser.add_argument("--plot", type=Path, help="write a figure: CRB over rate, all draws")
    parser.add_argument("--json", action="store_true", help="print the table as JSON, and nothing else")


def run(given: Namespace) -> int:
    """``twin compare precoders``."""
    if not given.draws >= 1:
        raise Misuse(f"--draws {given.draws}: must be at least 1")
    setup = Setup(
        snr_db=given.snr_db,
        msia_rad=given.msia,
        targets=given.targets,
        carrier_hz=given.carrier_ghz * 1e9,
        bandwidth_hz=given.bandwidth_ghz * 1e9,
        columns=given.array,
        rows=given.array,
        delay_lines=(max(given.array // 2, 1), max(given.array // 2, 1)),
    )
    wanted = {*(given.scheme or SCHEMES), "comm", "sensing (21)", given.reference}
    schemes = {name: precoder for name, precoder in SCHEMES.items() if name in wanted}
    seeds: Sequence[int] = range(given.seed, given.seed + given.draws)
    moves = sys.stderr.isatty() and not given.json
    if given.scenario is not None and not given.subframes >= 1:
        raise Misuse(f"--subframes {given.subframes}: must be at least 1")

    def tell(done: int, total: int) -> None:
        if moves:
            print(f"\r{done}/{total} problems ", end="", file=sys.stderr, flush=True)

    if given.scenario is None:
        found = compare(setup, seeds, schemes, tell, given.reflection)
    else:
        from twin.commands import pair

        if moves:
            print(f"playing {given.subframes} subframes of {given.scenario}", end="", file=sys.stderr, flush=True)
        problems = met(given.scenario, dict(pair(text) for text in given.sets), given.subframes, given.draws)
        schemes, seeds = balanced(schemes), range(len(problems))
        found = side_by_side(problems, schemes, tell, given.reflection)
    if moves:
        print("\r\033[K", end="", file=sys.stderr)
    rows = [summary(name, found, given.reference) for name in schemes]
    if given.csv:
        write(given.csv, found, seeds)
    if given.plot:
        plot(given.plot, found)
    if given.json:
        source = {"setup": vars(setup)} if given.scenario is None else {"scenario": str(given.scenario)}
        json.dump({"draws": len(seeds), **source, "schemes": rows}, sys.stdout, indent=1)
        print()
    else:
        about = f"{given.draws} draws, SNR {given.snr_db:g} dB, MSIA {given.msia:g} rad"
        if given.scenario is not None:
            about = f"{given.scenario}: {len(seeds)} beams of its first {given.subframes} subframes, as believed"
        show(rows, about, given.reference)
    return 0


def summary(name: str, found: Mapping[str, list[Score]], reference: str) -> dict[str, Any]:
    """One scheme's line: means over draws, CRB as a geometric mean, and its CRB against the reference's on the same draws."""
    own, other = found[name], found[reference]
    rate, crb = np.array([s.rate for s in own]), np.array([s.crb for s in own])
    db, half = interval_db(crb / np.array([s.crb for s in other]))
    gain = []
    for i, score in enumerate(own):
        sensing, comm = found["sensing (21)"][i], found["comm"][i]
        if comm.rate > sensing.rate and comm.crb > sensing.crb and np.isfinite(comm.crb):
            gain.append(
                dual_functional_gain(
                    np.array([score.rate]), np.array([score.crb]), (sensing.rate, sensing.crb), (comm.rate, comm.crb)
                )
            )
    lit = crb[np.isfinite(crb)]
    return {
        "scheme": name,
        "rate_bits": float(rate.mean()),
        "crb_rad2": float(np.exp(np.log(lit).mean())) if lit.size else float("inf"),
        "singular": int(len(crb) - lit.size),
        f"crb_db_vs_{reference}": db,
        "crb_db_ci95": half,
        "dual_gain_median": float(np.median(gain)) if gain else float("nan"),
        "correlation": float(np.mean([1 / s.divergence for s in own])),
        "time_ms": 1e3 * float(np.median([s.time_s for s in own])),
    }


def show(rows: list[dict[str, Any]], about: str, reference: str) -> None:
    """The table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=about,
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in (
        "scheme",
        "rate, bit",
        "CRB, rad2",
        f"CRB vs {reference}, dB",
        "dual gain (13)",
        "correlation (16)",
        "time, ms",
    ):
        table.add_column(column, justify="left" if column == "scheme" else "right")
    for row in rows:
        db = row[f"crb_db_vs_{reference}"]
        table.add_row(
            row["scheme"],
            f"{row['rate_bits']:.2f}",
            f"{row['crb_rad2']:.2e}",
            "-" if row["scheme"] == reference else f"{db:+.1f} ± {row['crb_db_ci95']:.1f}",
            f"{row['dual_gain_median']:.2f}",
            f"{row['correlation']:.2f}",
            f"{row['time_ms']:.1f}",
        )
    console = Console()
    Console(width=max(console.width, 110)).print(table)
    print(
        "CRB: geometric mean, angles, ± 95 % of the paired mean. Dual gain: median, clipped to the box between comm and sensing (21)."
    )


def write(path: Path, found: Mapping[str, list[Score]], seeds: Sequence[int]) -> None:
    """A row for each draw and scheme."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("seed", "scheme", "rate", "crb", "divergence", "clipped", "time_s"))
        for i, seed in enumerate(seeds):
            for name, scores in found.items():
                s = scores[i]
                table.writerow((seed, name, s.rate, s.crb, s.divergence, s.clipped, s.time_s))


def plot(path: Path, found: Mapping[str, list[Score]]) -> None:
    """CRB over rate: a dot a draw, a cross at each scheme's mean."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for i, (name, scores) in enumerate(found.items()):
        rate, crb = np.array([s.rate for s in scores]), np.array([s.crb for s in scores])
        lit, colour = np.isfinite(crb), colormaps["tab20"](i % 20)
        axes.plot(rate[lit], crb[lit], ".", ms=3, alpha=0.35, color=colour)
        if np.any(lit):
            axes.plot(
                rate[lit].mean(),
                np.exp(np.log(crb[lit]).mean()),
                "Xo^vsDP*<>ph"[i % 12],
                ms=8,
                color=colour,
                label=name,
            )
    axes.set_yscale("log")
    axes.set_xlabel("rate, bits a symbol over all subcarriers")
    axes.set_ylabel("CRB of all angles, one symbol, rad²")
    axes.legend(fontsize=8, ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(path)


if __name__ == "__main__":
    own = ArgumentParser(prog="python -m twin.compare_precoders")
    arguments(own)
    raise SystemExit(run(own.parse_args()))
