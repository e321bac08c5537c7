"""papers/004 in the closed loop: users that speed up while the twin runs, under plans that follow and plans that do not; rates come from drawn channels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.dual import claim, main, read, written

SCENARIO = Path(__file__).parents[2] / "scenarios" / "paper004.yaml"
SLOW_MPS, FAST_MPS = 5.0, 33.0
RAMP_S = 0.3  # a caricature of a change of speed: 93 m/s2, thirty times what the tracker believes in
PLANNING = "sites.bs0.control.planning"
# name -> what is set over the scenario
CONTROLLERS: dict[str, dict[str, Any]] = {
    "follows": {},
    "held": {f"{PLANNING}.replan_subframes": 10**6, f"{PLANNING}.stale_surprise": 1e9},
    "held, notices": {f"{PLANNING}.replan_subframes": 10**6},
    "adaptive": {
        f"{PLANNING}.search": "adaptive",
        f"{PLANNING}.metric": "ergodic",
        f"{PLANNING}.replan_subframes": 4,
        "sites.bs0.control.estimation.guard": "wide",
    },
    "constant speed": {},
}
COLUMNS = (
    *("controller", "t_s", "speed_mps", "tracked_mps", "updates", "sensing_blocks", "stale", "surprise"),
    *("rate_mbps", "planned_mbps", "formula_mbps", "believed_mbps"),
)


def traces(path: Path, change_s: float, end_s: float, faster: bool) -> list[str]:
    """Write the five users of the scenario as a trace: along y at one speed, then at another; return their names."""
    place = {
        "user1": (55, -40, 1),
        "user2": (120, -30, 1),
        "user3": (60, 15, -1),
        "user4": (150, 40, -1),
        "user5": (70, 50, -1),
    }
    time_s = np.round(np.arange(0, end_s + 0.06, 0.01), 6)
    slope = (FAST_MPS - SLOW_MPS) / RAMP_S if faster else 0.0
    since = np.clip(time_s - change_s, 0, RAMP_S)
    speed = SLOW_MPS + slope * since
    gone = SLOW_MPS * time_s + slope * since**2 / 2 + slope * RAMP_S * np.maximum(time_s - change_s - RAMP_S, 0)
    with path.open("w", encoding="utf-8") as out:
        out.write("time_s,name,x_m,y_m,z_m,vx_mps,vy_mps,vz_mps\n")
        for name, (x, y, sign) in place.items():
            for t, s, v in zip(time_s, gone, speed, strict=True):
                out.write(f"{t:.6f},{name},{x},{y + sign * s:.9f},0,0,{sign * v:.9f},0\n")
    return list(place)


def played(overrides: dict[str, Any], trace: Path, names: list[str], end_s: float) -> Iterator[tuple[Any, ...]]:
    """Rows of one run, a row a subframe."""
    from twin.build import Twin
    from twin.loop import Site, Subframe
    from twin.scenario import load

    users = [{"name": "user", "mobility": {"kind": "trace", "path": str(trace.resolve()), "names": names}}]
    scenario = load(SCENARIO, {"users": users, "duration_s": end_s, **overrides})
    rows: list[tuple[Any, ...]] = []
    said: list[tuple[str, ...] | None] = [None]

    class Watched(Twin):
        def watch(self, subframe: Subframe, site: Site) -> None:
            super().watch(subframe, site)
            kpi, truth, tracks = subframe.kpi, subframe.truth, site.controller.belief.tracks
            assert kpi.planned_bps is not None
            assert kpi.formula_bps is not None
            assert kpi.surprise is not None
            speed = float(np.linalg.norm(truth.velocity_mps[truth.is_user], axis=1).mean())
            bound = tracks.user >= 0
            tracked = float(np.linalg.norm(tracks.state[bound, 3:], axis=1).mean()) if bound.any() else np.nan
            rates = (kpi.rate_bps, kpi.planned_bps, kpi.formula_bps, kpi.predicted_bps)
            all_known = all(np.isfinite(rate).all() for rate in rates)
            why, last = subframe.plan.reason or (), said[-1]
            said.append(why)
            anew = why != last and any("planned anew" in line for line in why)
            rows.append(
                (
                    *(kpi.t_ns * 1e-9, speed, tracked, kpi.updates, subframe.plan.sensing_blocks),
                    int(anew),
                    float(np.nanmax(np.append(kpi.surprise, 0.0))),
                    *(float(rate.sum()) * 1e-6 if all_known else np.nan for rate in rates),
                )
            )

    with Watched(scenario) as twin:
        twin.play(split=False, progress=False)
    return iter(rows)


def make(path: Path, quick: bool) -> None:
    change_s, end_s = (0.25, 0.75) if quick else (0.6, 1.6)

    def lines() -> Iterator[tuple[Any, ...]]:
        for name, overrides in CONTROLLERS.items():
            if quick and name == "adaptive":
                continue
            trace = path.with_name(f"{path.stem}-{'constant' if name == 'constant speed' else 'faster'}.csv")
            names = traces(trace, change_s, end_s, name != "constant speed")
            for row in played(overrides, trace, names, end_s):
                yield name, *row

    written(path, COLUMNS, lines())
    drawing(path)


def drawing(path: Path) -> None:
    """Speeds, updates, surprise and rates over time, beside the CSV."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = read(path)
    figure = Figure(figsize=(11, 10), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(4, 1, sharex=True)
    names = [name for name in CONTROLLERS if any(r["controller"] == name for r in found)]
    for i, name in enumerate(names):
        rows = [r for r in found if r["controller"] == name]
        t, colour = [r["t_s"] for r in rows], f"C{i}"
        if name == "follows":
            axes[0].plot(t, [r["speed_mps"] for r in rows], "k", lw=1, label="true")
            axes[0].plot(t, [r["tracked_mps"] for r in rows], colour, label="tracked (mean of users)")
        axes[1].step(t, [r["updates"] for r in rows], colour, where="post", label=name)
        if name != "constant speed":
            axes[2].semilogy(t, [max(r["surprise"], 0.3) for r in rows], colour, lw=1, label=name)
        axes[3].plot(t, smooth([r["rate_mbps"] for r in rows]), colour, label=f"{name}: realised")
        if name in ("follows", "held", "adaptive"):
            axes[3].plot(t, smooth([r["planned_mbps"] for r in rows]), colour, ls="--", lw=1, label=f"{name}: planned")
        if name == "follows":
            axes[3].plot(
                t, smooth([r["formula_mbps"] for r in rows]), colour, ls=":", lw=1, label="follows: equation (22)"
            )
    for axis, label in zip(
        axes, ("speed, m/s", "updates a subframe", "largest surprise of pilots", "sum rate, Mbit/s"), strict=True
    ):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[2].axhline(4.0, color="k", ls="--", lw=0.8)
    axes[3].set_xlabel("time, s")
    axes[3].set_yscale("log")
    axes[3].yaxis.set_major_formatter("{x:g}")
    axes[3].yaxis.set_minor_formatter("{x:g}")
    figure.savefig(path.with_suffix(".png"), dpi=120)


def smooth(values: list[float], over: int = 10) -> np.ndarray:
    """Running mean over subframes; NaN until all users are served."""
    v = np.array(values, float)
    total = np.cumsum(np.nan_to_num(v))
    count = np.cumsum(np.isfinite(v))
    out = np.full(len(v), np.nan)
    whole = count[over:] - count[:-over] == over
    out[over:][whole] = ((total[over:] - total[:-over]) / over)[whole]
    return out


def verdict(path: Path) -> list[dict[str, Any]]:
    found = read(path)
    end = max(r["t_s"] for r in found)
    true = [r for r in found if r["controller"] == "follows"]
    changes = [r["t_s"] for r in true if r["speed_mps"] > SLOW_MPS + 0.01]
    change, settled = min(changes), min(r["t_s"] for r in true if r["speed_mps"] > FAST_MPS - 0.01)

    def over(name: str, column: str, start: float, stop: float) -> np.ndarray:
        v = [r[column] for r in found if r["controller"] == name and start <= r["t_s"] <= stop]
        return np.array(v, float)

    def mean(name: str, column: str, start: float, stop: float) -> float:
        return float(np.nanmean(over(name, column, start, stop)))

    slow, fast = (0.6 * change, change), ((settled + end) / 2, end)

    def error(name: str, when: tuple[float, float], column: str = "planned_mbps") -> float:
        return mean(name, column, *when) / mean(name, "rate_mbps", *when) - 1

    m_slow, m_fast = mean("follows", "updates", *slow), mean("follows", "updates", *fast)
    out = [
        claim("the plan follows: more updates once users are fast", m_fast > 1.5 * m_slow, slow=m_slow, fast=m_fast),
        claim(
            "it is the speed: where nobody speeds up the updates stay",
            abs(mean("constant speed", "updates", *fast) / mean("constant speed", "updates", *slow) - 1) < 0.2,
            slow=mean("constant speed", "updates", *slow),
            fast=mean("constant speed", "updates", *fast),
        ),
        claim(
            "a plan that follows is realised as planned, within 10 %",
            max(abs(error("follows", slow)), abs(error("follows", fast))) < 0.1,
            slow=error("follows", slow),
            fast=error("follows", fast),
        ),
        claim(
            "a plan that is held promises too much once users have moved on",
            error("held", fast) > 0.1 and abs(error("held", slow)) < 0.1,
            slow=error("held", slow),
            fast=error("held", fast),
        ),
        claim(
            "following pays: 1 % more realised than held, once users are fast",
            mean("follows", "rate_mbps", *fast) > 1.01 * mean("held", "rate_mbps", *fast),
            gain=mean("follows", "rate_mbps", *fast) / mean("held", "rate_mbps", *fast) - 1,
        ),
        claim(
            "equation (22) is far below what is realised",
            mean("follows", "formula_mbps", *fast) < 0.5 * mean("follows", "rate_mbps", *fast),
            ratio=mean("follows", "formula_mbps", *fast) / mean("follows", "rate_mbps", *fast),
        ),
    ]
    if any(r["controller"] == "held, notices" for r in found):
        before = over("held, notices", "stale", *slow).sum()
        during = over("held, notices", "stale", change, settled + 0.1).sum()
        out.append(
            claim(
                "the loop notices a stale R-hat while users speed up, and plans anew",
                during > before,
                noticed_before=before,
                noticed_during=during,
                largest_surprise=float(over("held, notices", "surprise", change, settled + 0.1).max()),
            )
        )
    if any(r["controller"] == "adaptive" for r in found):
        gain = min(mean("adaptive", "rate_mbps", *when) / mean("follows", "rate_mbps", *when) for when in (slow, fast))
        out.append(claim("adaptive beats the paper's plan by 50 % and more, realised", gain > 1.5, gain=gain - 1))
    return out


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
