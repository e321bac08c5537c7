"""The key figures of a whole run in constant memory, and the table a person reads at its end."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal.record import Array, Float
from twin.columns import Page, Table
from twin.kpi import Kpi

__all__ = ["Summary", "table"]

EXPECTED = {"believed": "predicted_bps", "planned": "planned_bps", "formula": "formula_bps"}
PARAMETERS = ("uy", "uz", "range_m", "velocity_mps")


class Summary:
    """Running sums over subframes: what is needed for means, shares and root mean squares, nothing that grows.

    Subframes are counted a page at a time; ``table``, if there is one, is given each page, and what it raises comes
    out of ``turn``, or of ``add`` where ``turn`` was due.
    """

    def __init__(self, users: tuple[str, ...], movers: tuple[str, ...]) -> None:
        self.users, self.movers = users, movers
        self.subframes = 0
        self.table: Table | None = None
        self._page = Page(len(users), len(movers))
        self._user = {
            name: np.zeros(len(users))
            for name in ("present", "rate", "predicted", "snr_blocks", "loss_blocks", "blocks", "outage")
        }
        # rates that were expected, beside those that came: count, realised, expected, squared difference
        self._expected = {name: np.zeros((4, len(users))) for name in EXPECTED}
        self._surprise = np.zeros((2, len(users)))
        self._mover = {name: np.zeros(len(movers)) for name in ("present", "tracked", "miss", "sigma")}
        self._pair = {name: np.zeros((len(movers), 4)) for name in ("error", "bound", "ratio")}
        self._seen = np.zeros(len(movers))
        # of data blocks that were listened to: how many estimates, and squares of error, bound and error over bound
        self._listened = np.zeros((4, len(movers), 4))
        self._first_ns = np.full(
            (2, len(movers)), np.nan
        )  # instants at which a mover was there, and followed, for the first time
        self._efficiency = np.zeros((2, len(users)))  # of users with several antennas: blocks times bit/s/Hz, blocks
        self._data = np.zeros(
            (3, len(users))
        )  # of frames that were played: bits, wrong bits, bits times mean square error
        self._whole = dict.fromkeys(
            (
                "detections",
                "side_lobe_echoes",
                "false_alarms",
                "lit",
                "missed",
                "tracks_false",
                "tracks_confirmed",
                "users_bound",
                "users_bound_right",
            ),
            0,
        )
        self._beams = dict.fromkeys(("beams_set", "beams_clipped"), 0)
        self._mean = {name: [0.0, 0] for name in ("nees", "track_nees", "sensing_share", "beam_delay_us")}
        self._most = {"doppler_block": 0.0, "dropped_w": 0.0}
        self._last = {"swaps": 0, "rebindings": 0}

    def add(self, kpi: Kpi, present: Any) -> bool:
        """Take in one subframe, ``present`` a flag for each mover in the order of their names; return whether ``turn`` is due."""
        if self._page.full:
            self.turn()
        self.subframes += 1
        return self._page.add(kpi, present)

    def turn(self) -> None:
        """Count, and write, the subframes that have not been yet."""
        page = self._page
        if page.count:
            self._count(page)
            try:
                if self.table is not None:
                    self.table.write(page)
            finally:
                page.clear()

    def _count(self, page: Page) -> None:
        user, rate = self._user, page["rate_bps"]
        here = np.isfinite(rate)
        user["present"] += here.sum(axis=0)
        user["rate"] += np.where(here, rate, 0.0).sum(axis=0)
        user["predicted"] += np.nansum(page["predicted_bps"], axis=0)
        # of a subframe in the dark nobody can say what a better beam would have brought
        lit = np.isfinite(page["snr_db"])
        snr_db, loss_db, blocks = (
            np.where(lit, page[name], 0.0) for name in ("snr_db", "beam_loss_db", "served_blocks")
        )
        user["blocks"] += blocks.sum(axis=0)
        user["snr_blocks"] += (blocks * 10 ** (snr_db / 10)).sum(axis=0)
        user["loss_blocks"] += (blocks * 10 ** ((snr_db + loss_db) / 10)).sum(axis=0)
        user["outage"] += page["outage_blocks"].sum(axis=0)
        for name, tally in self._expected.items():
            value = page[EXPECTED[name]]
            both = here & np.isfinite(value) & (blocks > 0)
            came, foretold = (np.where(both, each, 0.0) * 1e-9 for each in (rate, value))
            tally += np.stack([both, came, foretold, (foretold - came) ** 2]).sum(axis=1)
        self._surprise += _sums(page["surprise"], 1.0)
        heard = np.isfinite(page["evm_db"])
        if heard.any():
            bits = np.where(heard, page["data_bits"], 0.0)
            wrong, error = (np.where(heard, page[name], 0.0) for name in ("ber", "evm_db"))
            self._data += np.stack([bits, bits * wrong, bits * 10 ** (error / 10)]).sum(axis=1)
        self._efficiency += _sums(page["efficiency_bps_hz"], page["served_blocks"])
        mover, followed = self._mover, page["tracked"] >= 0
        mover["present"] += page.present.sum(axis=0)
        mover["tracked"] += followed.sum(axis=0)
        for first, now in zip(self._first_ns, (page.present, followed), strict=True):
            new = np.isnan(first) & now.any(axis=0)
            first[new] = page["t_ns"][now.argmax(axis=0)[new]]
        mover["miss"] += np.where(followed, page["position_error_m"] ** 2, 0.0).sum(axis=0)
        mover["sigma"] += np.where(followed, page["track_sigma_m"] ** 2, 0.0).sum(axis=0)
        error, bound = page["error"], page["bound"]
        seen = np.isfinite(error[..., 0]) & np.isfinite(bound[..., 0])
        self._seen += seen.sum(axis=0)
        row, who = np.nonzero(seen)
        for name, value in (("error", error), ("bound", bound)):
            np.add.at(self._pair[name], who, value[row, who] ** 2)
        np.add.at(self._pair["ratio"], who, (error[row, who] / bound[row, who]) ** 2)
        error, bound = page["data_error"], page["data_bound"]
        both = np.isfinite(error) & np.isfinite(bound)
        error, bound = np.where(both, error, 0.0), np.where(both, bound, 1.0)
        self._listened += np.stack([both, error**2, bound**2 * both, (error / bound) ** 2]).sum(axis=1)
        for sums in (self._whole, self._beams):
            for name in sums:
                sums[name] += int(page[name].sum())
        for name, sum_count in self._mean.items():
            told = page[name][np.isfinite(page[name])]
            sum_count[0] += float(told.sum())
            sum_count[1] += len(told)
        for name in self._most:
            self._most[name] = max(self._most[name], float(np.fmax.reduce(page[name])))
        for name in self._last:
            self._last[name] = int(page[name][-1])

    def told(self) -> dict[str, Any]:
        """The figures so far, in plain numbers."""
        self.turn()
        user, mover = self._user, self._mover
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = user["rate"] / user["present"] * 1e-9
            predicted = user["predicted"] / user["present"] * 1e-9
            snr_db = 10 * np.log10(user["snr_blocks"] / user["blocks"])
            loss_db = 10 * np.log10(user["loss_blocks"] / user["snr_blocks"])
            outage = user["outage"] / user["blocks"]
            tracked = mover["tracked"] / mover["present"]
            miss, sigma = (np.sqrt(mover[name] / mover["tracked"]) for name in ("miss", "sigma"))
            error, bound, ratio = (
                np.sqrt(self._pair[name] / self._seen[:, None]) for name in ("error", "bound", "ratio")
            )
            seen = self._seen.sum()
            whole_ratio = np.sqrt(self._pair["ratio"].sum(axis=0) / seen)
            whole_error, whole_bound = (np.sqrt(self._pair[name].sum(axis=0) / seen) for name in ("error", "bound"))
            expected = {
                name: {"gbps": sums[2] / sums[0], "error": np.sqrt(sums[3] / sums[0]) / (sums[1] / sums[0])}
                for name, sums in self._expected.items()
            }
            surprise = self._surprise[0] / self._surprise[1]
            efficiency = self._efficiency[0] / self._efficiency[1]
            looks, listened = self._listened[0], np.sqrt(self._listened[1:] / self._listened[0])
            ber, evm_db = self._data[1] / self._data[0], 10 * np.log10(self._data[2] / self._data[0])
        subframes = max(self.subframes, 1)
        return {
            "users": {
                name: {
                    "present_share": plain(user["present"][i] / subframes),
                    "rate_gbps": plain(rate[i]),
                    "predicted_gbps": plain(predicted[i]),
                    "snr_db": plain(snr_db[i]),
                    "beam_loss_db": plain(loss_db[i]),
                    "outage_share": plain(outage[i]),
                    **({"efficiency_bps_hz": plain(efficiency[i])} if self._efficiency[1, i] else {}),
                    **({"ber": plain(ber[i]), "evm_db": plain(evm_db[i])} if self._data.any() else {}),
                    # root mean square of expected less realised rate over the mean rate, subframes with service only
                    "believed_error": plain(expected["believed"]["error"][i]),
                    "planned_gbps": plain(expected["planned"]["gbps"][i]),
                    "planned_error": plain(expected["planned"]["error"][i]),
                    "formula_gbps": plain(expected["formula"]["gbps"][i]),
                    "formula_error": plain(expected["formula"]["error"][i]),
                    "pilot_surprise": plain(surprise[i]),
                }
                for i, name in enumerate(self.users)
            },
            "movers": {
                name: {
                    "present_share": plain(mover["present"][i] / subframes),
                    "tracked_share": plain(tracked[i]),
                    # from its appearance to the first subframe that ends with a confirmed track of it
                    "found_s": plain((self._first_ns[1, i] - self._first_ns[0, i]) * 1e-9),
                    "position_rmse_m": plain(miss[i]),
                    "track_sigma_m": plain(sigma[i]),
                    "detections": int(self._seen[i]),
                    "rmse": {p: plain(error[i, j]) for j, p in enumerate(PARAMETERS)},
                    "bound": {p: plain(bound[i, j]) for j, p in enumerate(PARAMETERS)},
                    "rmse_over_bound": {p: plain(ratio[i, j]) for j, p in enumerate(PARAMETERS)},
                    # echoes of data blocks: estimates, and their error beside the bound of the combiner in force
                    **({"data_echoes": told_of(looks[i], listened[:, i])} if looks[i].any() else {}),
                }
                for i, name in enumerate(self.movers)
            },
            "sensing": {
                "detections": self._whole["detections"],
                "side_lobe_echoes": self._whole["side_lobe_echoes"],
                "false_alarms": self._whole["false_alarms"],
                "missed_share": plain(self._whole["missed"] / self._whole["lit"] if self._whole["lit"] else np.nan),
                "rmse": {p: plain(whole_error[j]) for j, p in enumerate(PARAMETERS)},
                "bound": {p: plain(whole_bound[j]) for j, p in enumerate(PARAMETERS)},
                "rmse_over_bound": {p: plain(whole_ratio[j]) for j, p in enumerate(PARAMETERS)},
                "nees": self._averaged("nees"),
                "share": self._averaged("sensing_share"),
                "dropped_w": plain(self._most["dropped_w"]),
            },
            "tracks": {
                "alive_share": plain(
                    mover["tracked"].sum() / mover["present"].sum() if mover["present"].any() else np.nan
                ),
                "confirmed": plain(self._whole["tracks_confirmed"] / subframes),
                "false": plain(self._whole["tracks_false"] / subframes),
                "nees": self._averaged("track_nees"),
                "users_bound": plain(self._whole["users_bound"] / subframes),
                "bound_right_share": plain(
                    self._whole["users_bound_right"] / self._whole["users_bound"]
                    if self._whole["users_bound"]
                    else np.nan
                ),
                **self._last,
            },
            "beams": {
                "set": self._beams["beams_set"],
                "clipped": self._beams["beams_clipped"],
                "delay_us": self._averaged("beam_delay_us"),
            },
            "doppler_block": plain(self._most["doppler_block"]),
            "rate_gbps": plain(np.nansum(user["rate"]) / subframes * 1e-9),
        }

    def _averaged(self, name: str) -> float | None:
        total, count = self._mean[name]
        return plain(total / count if count else np.nan)


def _sums(value: Float[Array, "row user"], weight: Any) -> Float[Array, "2 user"]:
    """Weighted sum, and sum of the weights, of what was said."""
    told = np.isfinite(value)
    weight = np.where(told, weight, 0.0)
    return np.asarray(np.stack([weight * np.where(told, value, 0.0), weight]).sum(axis=1))


def told_of(looks: Float[Array, " parameter"], listened: Float[Array, "3 parameter"]) -> dict[str, Any]:
    """What a mover's data-block echoes amount to."""
    names = zip(("rmse", "bound", "rmse_over_bound"), listened, strict=True)
    found: dict[str, Any] = {name: {p: plain(v) for p, v in zip(PARAMETERS, of, strict=True)} for name, of in names}
    return {"estimates": int(looks[0]), **found}


def plain(value: Any) -> float | None:
    """A JSON number, or None for what was never measured."""
    return float(value) if np.isfinite(value) else None


def table(summary: dict[str, Any]) -> str:
    """The summary as a person reads it at a glance."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=None, record=False)
    with console.capture() as captured:
        rates = [u["rate_gbps"] or 0.0 for u in summary["users"].values()]
        unit, scale = ("Gbit/s", 1.0) if max(rates, default=1.0) >= 0.1 else ("Mbit/s", 1e3)
        planned = any(u.get("planned_gbps") is not None for u in summary["users"].values())
        users = Table(title="users", title_justify="left", box=None, pad_edge=False)
        columns = [("rate_gbps", f"rate {unit}"), ("predicted_gbps", "believed")]
        if planned:
            columns += [("planned_gbps", "planned"), ("formula_gbps", "by eq 22")]
        for column in ("user", *(title for _, title in columns), "SNR dB", "beam loss dB", "outage"):
            users.add_column(column, justify="left" if column == "user" else "right")
        for name, u in summary["users"].items():
            users.add_row(
                name,
                *(shown(None if u[k] is None else u[k] * scale, 2) for k, _ in columns),
                *(shown(u[k], d) for k, d in (("snr_db", 1), ("beam_loss_db", 2))),
                percent(u["outage_share"]),
            )
        console.print(users)
        movers = Table(
            title="sensing: root mean square error (Cramer-Rao bound)", title_justify="left", box=None, pad_edge=False
        )
        for column in ("mover", "tracked", "angle mdeg", "range mm", "speed mm/s", "track error m"):
            movers.add_column(column, justify="left" if column == "mover" else "right")
        for name, m in summary["movers"].items():
            movers.add_row(name, percent(m["tracked_share"]), *three(m), shown(m["position_rmse_m"], 2))
        console.print(movers)
        listened = {name: m["data_echoes"] for name, m in summary["movers"].items() if "data_echoes" in m}
        if listened:
            heard = Table(
                title="data-block echoes: error (bound of the combiner in force)",
                title_justify="left",
                box=None,
                pad_edge=False,
            )
            for column in ("mover", "estimates", "angle mdeg", "range mm", "speed mm/s"):
                heard.add_column(column, justify="left" if column == "mover" else "right")
            for name, m in listened.items():
                heard.add_row(name, str(m["estimates"]), *three(m))
            console.print(heard)
    run, tracks, lag, sensing = summary["run"], summary["tracks"], summary["clock"], summary["sensing"]
    beams, cpu_ms = summary["beams"], lag["subframe"]["cpu_p50_us"] / 1e3
    pace = "not paced"
    if lag["mode"] == "paced":
        slipped = f"{lag['skipped']} deadlines skipped, clock slipped {lag['slipped_us'] * 1e-6:.3f} s"
        pace = f"lag p99 {lag['lag']['p99_us']:.0f} us, late {lag['late']} times ({lag['overrun']}: {slipped})"
    speed = run["simulated_s"] / max(run["wall_s"], 1e-9)
    lines = [
        f"sum rate {shown(None if summary['rate_gbps'] is None else summary['rate_gbps'] * scale, 2)} {unit}",
        f"tracks alive {percent(tracks['alive_share'])}, false {shown(tracks['false'], 2)} a subframe; "
        f"users bound to the right track {percent(tracks['bound_right_share'])}, swaps {tracks['swaps']}, rebindings {tracks['rebindings']}",
        f"detections {sensing['detections']}, of them through side lobes {sensing['side_lobe_echoes']}, false alarms {sensing['false_alarms']}; "
        f"missed {percent(sensing['missed_share'])} of those in a main lobe at 20 dB and more",
        f"beams set {beams['set']} (settings clipped {beams['clipped']}), in force after {shown(beams['delay_us'], 0)} us; "
        f"subframe CPU p50 {cpu_ms:.2f} ms of {lag['budget_us'] / 1e3:g} ms, {pace}",
        f"{run['subframes']} subframes, {run['simulated_s']:.3f} s simulated in {run['wall_s']:.2f} s ({speed:.2f} x real time)",
        f"seed {run['seed']}, hash {run['hash'][:16]}{'; INTERRUPTED' if run['interrupted'] else ''}",
    ]
    lines += [
        f"{name}: uncoded bit error rate {u['ber']:.2e}, error vector {shown(u['evm_db'], 1)} dB"
        for name, u in summary["users"].items()
        if u.get("ber") is not None
    ]
    lines += [f"warning: {line}" for line in summary["warnings"]]
    return captured.get() + "\n".join(lines)


def shown(value: float | None, digits: int) -> str:
    """A number with so many digits, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share in per cent, or a dash."""
    return "-" if value is None else f"{100 * value:.1f} %"


def three(told: dict[str, Any]) -> list[str]:
    """Errors of angle, range and speed beside their bounds."""
    return [
        beside(angle(told["rmse"]), angle(told["bound"])),
        beside(*(milli(told[k]["range_m"]) for k in ("rmse", "bound"))),
        beside(*(milli(told[k]["velocity_mps"]) for k in ("rmse", "bound"))),
    ]


def beside(value: float | None, bound: float | None) -> str:
    """An error and its bound."""
    return "-" if value is None or bound is None else f"{value:.1f} ({bound:.1f})"


def milli(value: float | None) -> float | None:
    """In thousandths."""
    return None if value is None else 1e3 * value


def angle(pair: dict[str, float | None]) -> float | None:
    """Root sum square of both direction cosines, in millidegrees at boresight."""
    uy, uz = pair["uy"], pair["uz"]
    if uz is None:  # a line array tells one angle
        uz = 0.0
    return None if uy is None else float(np.rad2deg(np.hypot(uy, uz)) * 1e3)
