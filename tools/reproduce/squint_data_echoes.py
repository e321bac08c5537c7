"""Ours beside papers/000: echoes of data blocks through the actual combiner, their realised error beside its bound, and what they do for tracks."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from hal.array import direction_to, element_amplitude
from hal.chain import thermal_noise_w
from hal.frontend import Beam, BeamReport, Drive
from hal.record import Array
from tools.reproduce.figure import figure
from tools.reproduce.squint import claim, main, told
from twin.build import open_frontend, run
from twin.data_echoes import DataEchoes
from twin.drawing import GRID, look
from twin.overheard import data_errors, observed_blocks, overhear
from twin.physics.draws import Draws
from twin.physics.fisher import crb, echo_gram, illumination, information, total_information
from twin.physics.rate import rate_bps
from twin.planning._rows import squinted, to_transmit
from twin.precoding import Problem
from twin.precoding.delay_phase import steer
from twin.precoding.direct import Direct
from twin.records import EchoObservation, Plan, Tracks
from twin.scenario import frontend_spec, load, numerology
from twin.tracking.ekf import Ekf
from twin.world import Mover, World

SCENE = "scenarios/paper000.yaml"
POWERS = (-10.0, 0.0, 10.0, 20.0, 30.0)  # dBm
WEIGHTS = (0.25, 1.0, 2.0, 4.0, 8.0, 16.0)
# of the three targets, as in the paper's scene but for their ranges: that has all movers at 35 m, in one range cell of 8 GHz, which is a part of its own
PLACES = ([32.1, 4.7, 1.9], [36.3, -5.3, 1.2], [33.0, 0.1, 6.8])
APART = [
    {"name": f"target{i}", "rcs_m2": 10, "mobility": {"kind": "static", "position_m": p}} for i, p in enumerate(PLACES)
]
AWAY = 0.35  # direction cosine by which a receive beam misses
BLOCK_NS = 140_000
HEAD = ("part", "x", "seed", "who", "what", "error", "bound", "rate", "designed", "combined")
LOOP = {  # dwells are scarce: six movers that turn about, and a look at one of them every 20 ms
    "duration_s": 2.0,
    "subframe.period_ms": 20,
    "subframe.blocks": 40,
    "subframe.block_us": 500,
    "sensing.dwells": 1,
    "sensing.frames_per_dwell": 8,
    "communication.subcarriers": 32,
    # as they turn about: 3 m/s with a memory of half a second
    "control.tracking": {"kind": "ekf", "acceleration_mps2": 8.0},
    "control.precoding": {"kind": "direct", "budget_steps": 8, "rate_weight": 1.0},
}
CROWD = [
    {
        "name": f"mover{i}",
        "rcs_m2": 10,
        "mobility": {
            "kind": "gauss_markov",
            "position_m": place,
            "velocity_mps": [0, speed, 0],
            "sigma_mps": [3, 3, 0],
            "memory_s": 0.5,
        },
    }
    for i, (place, speed) in enumerate(
        (
            ([40, 4, 1.5], 3),
            ([44, -6, 1.5], -2),
            ([36, -2, 1.5], 2),
            ([48, 8, 1.5], -3),
            ([42, 12, 1.5], 1),
            ([38, -12, 1.5], 0),
        )
    )
]


class Stand:
    """The machine of ``SCENE`` and its movers, standing still: beams are loaded, data blocks leave, and what came back is asked for, trial after trial.

    Nothing of the estimator makes the samples: ``hal`` plays them, squint, steps of the settings and Doppler included.
    """

    def __init__(self, overrides: dict[str, Any], **echoes: Any) -> None:
        scenario = load(SCENE, overrides)
        (name,) = scenario.sites
        self.scenario, self.spec, self.numerology = scenario, frontend_spec(scenario, name), numerology(scenario)
        self.frontend, self.draws = open_frontend(scenario), Draws(scenario.seed)
        groups = (scenario.users, True), (scenario.targets, False)
        self.world = World(
            [
                Mover(name=m.name, is_user=user, rcs_m2=m.rcs_m2, mobility=m.mobility)
                for group, user in groups
                for m in group
            ],
            self.draws,
        )
        self.truth = self.world.at(0)
        self.echoes = DataEchoes(blocks=1, **echoes)
        self.direction, _ = direction_to(self.spec.receive.array, self.truth.position_m)
        self.reports: dict[str, BeamReport] = {}
        self.power_w = np.zeros(0)

    def load(self, sent: Any, power_w: Array, looks: Array) -> None:
        """One transmit row (settings with a row axis), and a receive row a look (directions)."""
        heard = steer(
            self.spec.receive, squinted(self.spec.receive, self.spec.carrier_hz, looks, 0.3), self.spec.carrier_hz
        )
        for half, settings in (("transmit", sent), ("receive", heard)):
            one = {name: getattr(settings, name) for name in ("delay_s", "phase_rad", "amplitude")}
            beam = Beam(half=half, slot=np.arange(len(one["phase_rad"])), **one)
            self.reports[half] = self.frontend.set_beam(beam, -1_000_000_000)
        self.power_w, self.looks = power_w, len(looks)

    def beam(self) -> Array:
        """The transmit response really in force."""
        return np.asarray(self.frontend.emit(self._drive(np.zeros(1, np.int64))).response[0, :, :, 0])

    def _drive(self, t_ns: Array) -> Drive:
        return Drive(
            t_ns=t_ns,
            slot=np.zeros(len(t_ns), np.int64),
            frequency_hz=self.numerology.subcarrier_hz,
            power_w=np.tile(self.power_w, (len(t_ns), 1)),
            digital=np.ones((len(t_ns), 1, 1), np.complex128),
        )

    def amplitude(self) -> Array:
        """Two-way field gains of the movers, element patterns included."""
        spec = self.spec
        paths = self.scenario.channel.echo(
            self.truth, spec.transmit.array, spec.receive.array, np.zeros(1, np.int64), spec.carrier_hz, self.draws
        )
        pattern = element_amplitude(spec.receive.array, self.direction) * element_amplitude(
            spec.transmit.array, self.direction
        )
        return np.asarray(paths.gain[0] * pattern)

    def tracks(self, rng: np.random.Generator, t_ns: int, spread_m: float) -> Tracks:
        """What is believed: places off by ``spread_m`` an axis, and as strong as they are."""
        movers, numerology = len(self.truth.entity), self.numerology
        state = np.column_stack([self.truth.position_m, self.truth.velocity_mps])
        sigma = np.repeat([spread_m, 0.1], 3)
        samples = numerology.delay_bins * numerology.doppler_bins * numerology.frames_per_dwell
        noise_w = thermal_noise_w(numerology.sample_rate_hz, self.spec.noise_figure_db)
        size = np.maximum(np.abs(self.amplitude()) ** 2, 1e-30)
        return Tracks(
            t_ns=t_ns,
            track=np.arange(movers),
            state=state + sigma * rng.normal(size=state.shape),
            covariance=np.tile(np.diag(sigma**2), (movers, 1, 1)),
            user=np.full(movers, -1),
            confirmed=np.ones(movers, bool),
            hits=np.full(movers, 9),
            misses=np.zeros(movers, np.int64),
            seen_ns=np.full(movers, t_ns),
            strength_db=10 * np.log10(size * self.spec.transmit_power_w * samples / noise_w),
            born=movers,
        )

    def trial(self, number: int, spread_m: float = 0.05) -> dict[str, Any]:
        """Blocks through all looks by turns, what the controller made of them, and the bound: as ``twin.kpi`` has it."""
        t_ns = 10_000_000 * (number + 1) + BLOCK_NS * np.arange(self.looks)
        blocks = np.arange(self.looks)
        none = np.zeros(0, np.int64)
        plan = Plan(
            k=number,
            sensing_blocks=0,
            sensing_ns=0,
            dwell_transmit_slot=none,
            dwell_receive_slot=none,
            dwell_target=none,
            update_block=none,
            pilot_receive_slot=np.zeros((0, 0), np.int64),
            slot=0 * blocks,
            served=np.zeros((self.looks, 0), bool),
            user=none,
            echo_slot=blocks,
            echo_track=blocks,
        )
        emission = self.frontend.emit(self._drive(t_ns))
        world = self.frontend, self.world, self.scenario.channel, self.draws, self.numerology
        heard = overhear(*world, plan, emission, blocks, 0, self.echoes.integration_ns)
        seen = EchoObservation(
            k=number,
            t_ns=int(t_ns[-1]) + BLOCK_NS,
            spec=self.spec,
            numerology=self.numerology,
            plan=plan,
            user=none,
            drive=None,
            listen=None,
            echo=None,
            detections=None,
            transmit_beam=self.reports["transmit"],
            receive_beam=self.reports["receive"],
            blocks=observed_blocks(heard),
        )
        before = self.tracks(np.random.default_rng(number), int(t_ns[0]), spread_m)
        after, refined = self.echoes.refined(seen, before, Ekf())
        told = data_errors(heard, refined, self.reports["receive"], self.spec, self.truth.entity)
        return told | {"before": before, "after": after, "refined": refined}


def problem_of(stand: Stand) -> Problem:
    """The user to serve and the targets to light, as they truly are."""
    spec, size = stand.spec, stand.amplitude()
    whole = (1, len(stand.numerology.subcarrier_hz))
    direction = to_transmit(spec, stand.direction)
    targets = ~stand.truth.is_user
    free = np.sqrt(np.abs(size[~targets][0]))  # any size will do: the rate is relative to what a matched beam carries
    return Problem(
        half=spec.transmit,
        frequency_hz=stand.numerology.subcarrier_hz,
        user_direction=direction[~targets],
        user_gain=np.full(whole, free, np.complex128),
        target_direction=direction[targets][None],
        target_gain=np.broadcast_to(size[targets][None, :, None], (1, int(targets.sum()), whole[1])).astype(
            np.complex128
        ),
        power_w=spec.transmit_power_w,
        noise_w=stand.numerology.user_noise_w,
        receive=spec.receive.array,
        echo_noise_w=thermal_noise_w(1e9 / stand.echoes.integration_ns, spec.noise_figure_db),
    )


def designed(stand: Stand, problem: Problem) -> tuple[float, float]:
    """Bounds of eqs (10)-(11) on the targets' cosines for the beam in force, reflections known: every element heard, and through the combiners by turns."""
    half, f, power_w = stand.spec.receive, problem.frequency_hz, stand.power_w
    assert problem.echo_noise_w is not None
    lit = illumination(problem.half.array, problem.target_direction[0], f, stand.beam())
    given = half.array, problem.target_direction[0], problem.target_gain[0], f, problem.echo_noise_w
    every = stand.looks * total_information(information(echo_gram(*given), lit), power_w)
    back = stand.reports["receive"].readback
    assert back is not None
    from hal.network import response

    heard = response(half.network, back.delay_s, back.phase_rad, back.amplitude, f[:1])[:, 0]
    through = sum(total_information(information(echo_gram(*given, combiner=one[None]), lit), power_w) for one in heard)
    return float(crb(every)), float(crb(through))


def make(path: Path, quick: bool) -> None:
    trials, seeds = (40, 3) if quick else (400, 24)
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(HEAD)

        def play(part: str, x: float, stand: Stand, targets: Any, *rest: float) -> None:
            for number in range(trials):
                one = stand.trial(number)
                for who in targets:
                    for j, what in enumerate(("uy", "uz", "range_m")):
                        error, bound = one["data_error"][who, j], one["data_bound"][who, j]
                        table.writerow((part, x, number, who, what, error, bound, *rest, *(np.nan,) * (3 - len(rest))))

        for power_dbm in POWERS:
            told(f"{power_dbm:g} dBm")
            stand = Stand({"power_dbm": power_dbm, "targets": APART})
            design = Direct(rate_weight=2.0).design(problem_of(stand))
            targets = np.flatnonzero(~stand.truth.is_user)
            stand.load(design, design.power_w[0], stand.direction[targets])
            play("power", power_dbm, stand, targets)
        stand = Stand({"power_dbm": POWERS[-1], "targets": APART})
        stand.load(design, design.power_w[0], stand.direction[targets] + [0.0, AWAY, 0.0])
        play("away", AWAY, stand, targets)
        dark = Stand({"power_dbm": POWERS[-1], "targets": [one | {"rcs_m2": 0.0} for one in APART]})
        dark.load(design, design.power_w[0], dark.direction[targets])
        play("dark", 0.0, dark, targets)
        stand = Stand({"power_dbm": POWERS[-1]})
        design = Direct(rate_weight=2.0).design(problem_of(stand))
        stand.load(design, design.power_w[0], stand.direction[targets])
        play("together", 0.0, stand, targets)
        for weight in WEIGHTS:
            told(f"rate weight {weight:g}")
            stand = Stand({"power_dbm": POWERS[-1], "targets": APART})
            problem = problem_of(stand)
            design = Direct(rate_weight=weight).design(problem)
            stand.load(design, design.power_w[0], stand.direction[targets])
            heard = np.sum(stand.beam() * _channel(problem), axis=-1)
            play(
                "weight",
                weight,
                stand,
                targets,
                float(rate_bps(heard, stand.power_w, problem.noise_w, 1.0)),
                *designed(stand, problem),
            )
        for seed in range(seeds):
            for on in (0, 1):
                told(f"loop, seed {seed}, listening {'on' if on else 'off'}")
                table.writerow(looped(seed, on))


def looped(seed: int, on: int) -> tuple[Any, ...]:
    """A row of the closed loop: tracks' error over the run's second half, root mean square over movers, and the share of time they are followed."""
    listens = {"sensing.data_echoes": {"blocks": 8 * on, "directions": 3}, "targets": CROWD}
    kpi = run("scenarios/smoke.yaml", LOOP | listens | {"seed": seed}, write=False).kpi
    settled = kpi.position_error_m[len(kpi.k) // 2 :]
    followed = float(np.mean(np.isfinite(settled)))
    return "loop", on, seed, "all", "position_m", np.sqrt(np.nanmean(settled**2)), followed, *(np.nan,) * 3


def _channel(problem: Problem) -> Array:
    from hal.array import steering

    return np.asarray(
        problem.user_gain[0][:, None] * steering(problem.half.array, problem.user_direction, problem.frequency_hz)
    )


def ratio(found: list[dict[str, Any]], whats: tuple[str, ...]) -> tuple[float, float, int, float]:
    """Root mean square of error over bound, half its 95 % interval (by trial), how many trials gave one, and the share of estimates that outlie."""
    own = [r for r in found if r["what"] in whats and np.isfinite(r["error"]) and np.isfinite(r["bound"])]
    kept = [r for r in own if _inside(r)]
    trial = np.array([r["seed"] for r in kept])
    square = np.array([(r["error"] / r["bound"]) ** 2 for r in kept])
    each = np.array([square[trial == t].mean() for t in np.unique(trial)])
    if len(each) < 2:
        return np.nan, np.nan, len(each), np.nan
    root = float(np.sqrt(each.mean()))
    half = float(1.96 * each.std(ddof=1) / np.sqrt(len(each)) / (2 * root))
    return root, half, len(each), 1 - len(kept) / len(own)


def _inside(row: dict[str, Any]) -> bool:
    """Within six bounds: what is not is another maximum of the likelihood, which no bound is about, and is counted."""
    return bool(abs(row["error"]) <= 6 * row["bound"])


def of(path: Path) -> list[dict[str, Any]]:
    """The CSV: words as words."""
    with path.open(encoding="utf-8") as stream:
        words = ("part", "who", "what")
        return [{k: v if k in words else float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def verdict(path: Path) -> list[dict]:
    found, out = of(path), []
    angles = ("uy", "uz")
    power = [r for r in found if r["part"] == "power"]
    top = [r for r in power if r["x"] == max(r["x"] for r in power)]
    together = [r for r in found if r["part"] == "together"]
    for text, rows, whats in (
        ("at high SNR the angle error of data-block echoes is the actual combiner's bound", top, angles),
        ("at high SNR the range error of data-block echoes is the actual combiner's bound", top, ("range_m",)),
        ("the angle error is so where user and three targets share one range cell, too", together, angles),
    ):
        value, half, trials, out_of = ratio(rows, whats)
        holds = abs(value - 1) <= 0.05 + half and half <= 0.15 and out_of <= 0.01
        numbers = {"rmse_over_crb": value, "ci95": half, "outlying_share": out_of, "trials": trials}
        out.append(claim(f"ours: {text}, to 5 % and the trials' interval", holds, **numbers))
    mean = {
        part: _mean_db([r for r in found if r["part"] == part] if part != "power" else top)
        for part in ("power", "away")
    }
    rise = [a - p for a, p in zip(mean["away"], mean["power"], strict=True)]
    out.append(
        claim(
            "ours: a receive beam that points away raises the bound, and the error with it where there still is an estimate",
            rise[1] > 3.0 and not rise[0] <= 3.0,
            error_db=rise[0],
            bound_db=rise[1],
        )
    )
    dark = [r for r in found if r["part"] == "dark" and np.isfinite(r["error"])]
    out.append(claim("ours: what does not reflect updates nothing", not dark, estimates=len(dark)))
    weight = [r for r in found if r["part"] == "weight"]
    xs = sorted({r["x"] for r in weight})
    table = np.array([_traded([r for r in weight if r["x"] == x]) for x in xs]).T
    rate, every, through, bound, error = table
    steps = {
        name: np.diff(np.log(column))
        for name, column in (("rate", rate), ("designed", every), ("bound", bound), ("error", error))
    }
    out.append(
        claim(
            "ours: rate weight trades: rate and designed bound rise with it at every step",
            all((steps[name] > -0.01).all() for name in ("rate", "designed")),
            rate_first=rate[0],
            rate_last=rate[-1],
            designed_rise_db=_db(every[-1] / every[0]),
        )
    )
    out.append(
        claim(
            "ours: what rate weight gives away of the designed bound is lost in the realised error too, to 3 dB",
            abs(_db(error[-1] / error[0]) - _db(every[-1] / every[0])) <= 3.0,
            designed_rise_db=_db(every[-1] / every[0]),
            combiner_known_rise_db=_db(through[-1] / through[0]),
            bound_rise_db=_db(bound[-1] / bound[0]),
            error_rise_db=_db(error[-1] / error[0]),
            combiner_over_designed_db=float(np.mean(10 * np.log10(through / every))),
            unknown_reflection_over_known_db=float(np.mean(10 * np.log10(bound / through))),
            error_over_bound_db=float(np.mean(10 * np.log10(error / bound))),
            outlying_share=float(np.mean([not _inside(r) for r in weight if np.isfinite(r["error"])])),
        )
    )
    loop = [r for r in found if r["part"] == "loop"]
    both = np.array(
        [
            [next(r[k] for r in loop if r["seed"] == s and r["x"] == on) for on in (0, 1) for k in ("error", "bound")]
            for s in sorted({r["seed"] for r in loop})
        ]
    )
    if len(both):
        gain = np.log(both[:, 2] / both[:, 0])
        half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
        out.append(
            claim(
                "ours: where dwells are scarce, listening to data blocks lowers the error of tracks (paired over seeds)",
                gain.mean() + half < 0,
                error_ratio=np.exp(gain.mean()),
                ci95_low=np.exp(gain.mean() - half),
                ci95_high=np.exp(gain.mean() + half),
                error_off_m=np.sqrt(np.mean(both[:, 0] ** 2)),
                error_on_m=np.sqrt(np.mean(both[:, 2] ** 2)),
                followed_off=both[:, 1].mean(),
                followed_on=both[:, 3].mean(),
                seeds=len(both),
            )
        )
    return out


def _db(value: float) -> float:
    return float(10 * np.log10(value))


def _mean_db(found: list[dict[str, Any]]) -> tuple[float, float]:
    """Mean square error and bound of both cosines, in dB; NaN where nobody was heard."""
    own = [r for r in found if r["what"] in ("uy", "uz")]
    errors = np.array([r["error"] for r in own if np.isfinite(r["error"]) and _inside(r)])
    bounds = np.array([r["bound"] for r in own if np.isfinite(r["bound"])])
    return (_db(np.mean(errors**2)) if len(errors) else np.nan), (_db(np.mean(bounds**2)) if len(bounds) else np.inf)


def _traded(found: list[dict[str, Any]]) -> tuple[float, float, float, float, float]:
    """Rate, bound as designed, through the combiner, with unknown reflections, and mean square error, each summed over targets and cosines."""
    own = [r for r in found if r["what"] in ("uy", "uz") and _inside(r)]
    each = sorted({(r["who"], r["what"]) for r in own})

    def total(name: str) -> float:
        return float(sum(np.nanmean([r[name] ** 2 for r in own if (r["who"], r["what"]) == one]) for one in each))

    return own[0]["rate"], own[0]["designed"], own[0]["combined"], total("bound"), total("error")


def draw(path: Path) -> Any:
    found = of(path)
    drawing, (left, right) = figure(2)
    power = [r for r in found if r["part"] == "power"]
    xs = sorted({r["x"] for r in power})
    for i, (name, whats) in enumerate((("direction cosines", ("uy", "uz")), ("range", ("range_m",)))):
        value, half, _, _ = np.array([ratio([r for r in power if r["x"] == x], whats) for x in xs]).T
        left.errorbar(xs, value, half, label=name, linewidth=1.2, capsize=2, **look(i))
    left.axhline(1.0, color="0.6", linewidth=0.8)
    left.set(xlabel="radiated power, dBm", ylabel="error over bound, rms")
    left.set_title("data-block echoes, actual combiner")
    weight = [r for r in found if r["part"] == "weight"]
    xs = sorted({r["x"] for r in weight})
    rate, every, through, bound, error = np.array([_traded([r for r in weight if r["x"] == x]) for x in xs]).T
    for i, (name, column) in enumerate(
        (
            ("designed: every element", every),
            ("actual combiner, reflection known", through),
            ("actual combiner, unknown", bound),
            ("realised", error),
        )
    ):
        right.plot(rate, column, label=name, linewidth=1.2, markersize=3.5, **look(i))
    right.set(yscale="log", xlabel="rate, bit/s/Hz", ylabel="summed variance of the targets' cosines")
    right.set_title("direct, rate weight 0.25 to 16")
    for axis in (left, right):
        axis.grid(**GRID)
        axis.legend(fontsize=7.5)
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
