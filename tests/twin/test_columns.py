"""Key figures a page at a time against the same done one subframe and one field at a time."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import MISSING, fields, replace
from typing import Any

import numpy as np
import pytest

from twin.columns import ROWS, Page, Table
from twin.kpi import Kpi
from twin.summary import Summary

USERS, MOVERS = ("car/a", "b, the second"), ("car/a", "b, the second", "drone")
SIZES = {"user": 2, "entity": 3, "block": 5, "4": 4}
OPTIONAL = ("planned_bps", "surprise", "updates", "data_bits", "ber", "evm_db", "efficiency_bps_hz")


def kpis(count: int, seed: int = 0, holes: bool = True, infinite: bool = False) -> list[Kpi]:
    """Key figures at random; with ``holes`` some are NaN, and optional ones come and go after the first subframe."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        values: dict[str, Any] = {}
        for field in fields(Kpi):
            kind, optional = str(field.type), field.default is not MISSING
            if optional and (field.name not in OPTIONAL or (holes and k and rng.random() < 0.3)):
                continue
            if "[Array" in kind:
                shape = [SIZES[axis] for axis in kind.replace('"', "'").split("'")[1].split()]
                if kind.startswith("Int"):
                    value: Any = rng.integers(-1, 40, shape)
                else:
                    value = rng.normal(5.0, 2.0, shape) ** 2
                    value[rng.random(shape) < 0.3 * holes] = np.nan
                    if field.name == "bound":  # of an elevation that a line array cannot tell
                        value[rng.random(shape) < 0.1 * infinite] = np.inf
            else:
                value = int(rng.integers(0, 9)) if kind.startswith("int") else float(rng.normal())
            values[field.name] = value
        values |= {"k": k, "t_ns": 5_000_000 * k + 2**50, "user": np.arange(2), "entity": np.arange(3)}
        values["dropped_w"] = 10.0 ** -rng.integers(0, 300)
        made.append(Kpi(**values))
    return made


def by_field(kpi: Kpi) -> dict[str, Any]:
    """A row of the table, from the definition."""
    names, row = {2: USERS, 3: MOVERS}, {}
    for field in fields(Kpi):
        value = getattr(kpi, field.name)
        if value is None or isinstance(value, tuple) or field.name in ("user", "entity", "block_rate_bps"):
            continue
        if not isinstance(value, np.ndarray):
            row[field.name] = value
        elif value.ndim == 1:
            row |= {f"{field.name}.{who}": v for who, v in zip(names[len(value)], value, strict=True)}
        else:
            parts = ("uy", "uz", "range_m", "velocity_mps")
            row |= {
                f"{field.name}.{part}.{who}": value[i, j]
                for i, who in enumerate(names[len(value)])
                for j, part in enumerate(parts)
            }
    return row


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("count", [1, ROWS, 2 * ROWS + 3])
def test_the_table_is_what_each_field_says_of_itself(count: int, infinite: bool) -> None:
    told, file = kpis(count, infinite=infinite), io.BytesIO()
    summary = Summary(USERS, MOVERS)
    summary.table = Table(file, USERS, MOVERS)
    for kpi in told:
        summary.add(kpi, np.ones(3, bool))
    summary.turn()
    summary.turn()
    text = file.getvalue().decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == list(by_field(told[0]))
    assert len(rows) == count == summary.subframes
    for kpi, row in zip(told, rows, strict=True):
        due = by_field(kpi)
        for name, said in row.items():
            value = due.get(name, np.nan)  # the first row's columns hold
            assert float(said) == value or (math.isnan(float(said)) and math.isnan(value)), name
            if name in ("k", "t_ns", "detections") or (name.startswith("served") and count == 1):
                assert said == str(int(value))


@np.errstate(invalid="ignore", divide="ignore")
def summed(told: list[Kpi], present: list[Any]) -> dict[str, Any]:
    """Some figures of the summary, one subframe after the other."""
    rate = np.array([k.rate_bps for k in told])
    blocks = np.array([np.where(np.isfinite(k.snr_db), k.served_blocks, 0) for k in told])
    snr = np.array([10 ** (np.nan_to_num(k.snr_db) / 10) for k in told])
    loss = np.array(
        [np.where(np.isfinite(k.snr_db), 10 ** ((k.snr_db + k.beam_loss_db) / 10), 0.0) for k in told]
    )  # NaN stays: a loss that nobody can say
    followed = np.array([k.tracked >= 0 for k in told])
    miss = np.array([np.where(k.tracked >= 0, k.position_error_m, 0.0) ** 2 for k in told])
    pair, seen = np.zeros((3, 4)), np.zeros(3)
    first = np.full(3, np.nan)
    for kpi, there, track in zip(told, present, followed, strict=True):
        for i in range(3):
            if np.isfinite(kpi.error[i, 0]) and np.isfinite(kpi.bound[i, 0]):
                pair[i] += (kpi.error[i] / kpi.bound[i]) ** 2
                seen[i] += 1
            if track[i] and np.isnan(first[i]):
                first[i] = kpi.t_ns
        assert len(there) == 3
    return {
        "rate": np.nansum(rate, axis=0) / np.isfinite(rate).sum(axis=0) * 1e-9,
        "snr": 10 * np.log10((blocks * snr).sum(axis=0) / blocks.sum(axis=0)),
        "loss": 10 * np.log10((blocks * loss).sum(axis=0) / (blocks * snr).sum(axis=0)),
        "rmse": np.sqrt(miss.sum(axis=0) / followed.sum(axis=0)),
        "ratio": np.sqrt(pair / seen[:, None]),
        "detections": sum(k.detections for k in told),
        "swaps": told[-1].swaps,
        "doppler": max(0.0, *(k.doppler_block for k in told)),
        "first": first,
    }


@pytest.mark.parametrize(("count", "holes"), [(1, False), (ROWS + 1, False), (ROWS - 1, True), (3 * ROWS, True)])
def test_the_summary_is_that_of_subframe_after_subframe(count: int, holes: bool) -> None:
    told = kpis(count, 1, holes)
    if holes:  # of a beam loss and a track error only what goes with them may be missing
        told = [
            replace(
                kpi,
                beam_loss_db=np.nan_to_num(kpi.beam_loss_db),
                position_error_m=np.nan_to_num(kpi.position_error_m),
                track_sigma_m=np.nan_to_num(kpi.track_sigma_m),
            )
            for kpi in told
        ]
    rng = np.random.default_rng(3)
    present = [rng.random(3) < 0.5 for _ in told]
    summary = Summary(USERS, MOVERS)
    for kpi, there in zip(told, present, strict=True):
        summary.add(kpi, there)
    found, due = summary.told(), summed(told, present)
    users, movers = (list(found[name].values()) for name in ("users", "movers"))

    def same(values: list[Any], expected: Any) -> None:
        assert np.allclose(np.array(values, dtype=float), expected, rtol=1e-12, equal_nan=True)  # None is NaN

    same([u["rate_gbps"] for u in users], due["rate"])
    same([u["snr_db"] for u in users], due["snr"])
    same([u["beam_loss_db"] for u in users], due["loss"])
    same([m["position_rmse_m"] for m in movers], due["rmse"])
    same([list(m["rmse_over_bound"].values()) for m in movers], due["ratio"])
    same([m["present_share"] for m in movers], np.mean(present, axis=0))
    began = [next((k.t_ns for k, p in zip(told, present, strict=True) if p[i]), np.nan) for i in range(3)]
    same([m["found_s"] for m in movers], (due["first"] - np.array(began)) * 1e-9)
    assert (found["sensing"]["detections"], found["tracks"]["swaps"]) == (due["detections"], due["swaps"])
    assert found["doppler_block"] == due["doppler"]
    assert type(found["sensing"]["detections"]) is int


def test_a_page_that_cannot_be_written_is_counted_all_the_same() -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    summary = Summary(USERS, MOVERS)
    summary.table = Table(Full(), USERS, MOVERS)  # type: ignore[arg-type]
    (kpi,) = kpis(1)
    summary.add(kpi, np.ones(3, bool))
    with pytest.raises(OSError, match="No space"):
        summary.turn()
    summary.turn()
    assert summary.told()["sensing"]["detections"] == kpi.detections


def test_time_is_exact_for_a_hundred_days() -> None:
    page = Page(2, 3)
    (kpi,) = kpis(1, holes=False)
    page.add(replace(kpi, t_ns=2**53 - 1), np.ones(3, bool))
    assert int(page["t_ns"][0]) == 2**53 - 1
    assert page["error"].shape == (1, 3, 4)
    assert page.present.all()
