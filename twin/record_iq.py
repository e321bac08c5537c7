"""``twin record iq``: echo samples as SigMF, from a recording or from a running twin."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hal.errors import LateArrival, Misuse
from twin import __version__
from twin.keys import given_keys, key_arguments
from twin.scenario import loads, numerology

__all__ = ["arguments", "run", "write"]

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``twin record iq`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Write the samples of the sensing receiver as SigMF: OUT.sigmf-data (complex float32) and OUT.sigmf-meta, one\n"
        "capture a frame, so that nothing is lost of when each was heard. From a run that kept its echoes\n"
        "(--set record.echoes=true), or from a twin that is running now."
    )
    parser.epilog = (
        "Examples:\n"
        "  twin run scenarios/smoke.yaml --set record.echoes=true --out runs/heard\n"
        "  twin record iq runs/heard echoes\n"
        "  twin record iq tcp://127.0.0.1:5570 echoes --subframes 200 --chain 2"
    )
    parser.add_argument("source", help="a run directory, a recording, or a running twin's state endpoint")
    parser.add_argument("out", type=Path, help="name of the pair of files, without its ending")
    parser.add_argument("--chain", type=int, default=0, help="of the receiver (default 0)")
    parser.add_argument("--subframes", type=int, default=0, help="at most so many (default: all)")
    key_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Write, and say what was written."""
    live = "://" in given.source
    about, heard = _live(given) if live else _recorded(Path(given.source))
    frames, samples = write(given.out, about, heard, given.chain, given.subframes)
    print(f"{_file(given.out, 'data')}: {samples} samples in {frames} frames")
    return 0


def write(
    out: Path, about: dict[str, Any], heard: Iterable[dict[str, Any]], chain: int = 0, subframes: int = 0
) -> tuple[int, int]:
    """Write receptions (``bs0.echo.``, as maps of their fields) as SigMF; return how many frames and samples.

    ``core:global_index`` counts samples of simulated time, so a gap between two captures is the gap there was. Raises Misuse for files
    that exist, a chain there is not, or nothing to write.
    """
    scenario = loads(about["scenario"], "<recorded>")
    grid = numerology(scenario)
    data, meta = _file(out, "data"), _file(out, "meta")
    for file in (data, meta):
        if file.exists():
            raise Misuse(f"{file}: exists already, and is not written over; choose another name")
    captures: list[dict[str, Any]] = []
    done, sha = 0, hashlib.sha512()
    with data.open("xb") as stream:
        for number, reception in enumerate(heard):
            if subframes and number == subframes:
                break
            samples = reception["samples"]
            if not 0 <= chain < samples.shape[1]:
                data.unlink()
                raise Misuse(f"chain = {chain}: the receiver has {samples.shape[1]}")
            for t_ns, row in zip(np.asarray(reception["t_ns"]).tolist(), samples[:, chain].astype("<c8"), strict=True):
                captures.append(
                    {
                        "core:sample_start": done,
                        "core:global_index": round(t_ns * 1e-9 * grid.sample_rate_hz),
                        "core:frequency": grid.carrier_hz,
                        "core:datetime": _datetime(t_ns),
                    }
                )
                sha.update(row.tobytes())
                stream.write(row.tobytes())
                done += len(row)
    if not captures:
        data.unlink()
        raise Misuse("there are no echoes in it: record them with --set record.echoes=true, at sensing.fidelity echo")
    told = {
        "global": {
            "core:datatype": "cf32_le",
            "core:version": "1.2.0",
            "core:sample_rate": grid.sample_rate_hz,
            "core:sha512": sha.hexdigest(),
            "core:num_channels": 1,
            "core:description": f"{scenario.title}: sensing receiver, chain {chain}, sqrt(W) at its output; seed {scenario.seed}",
            "core:recorder": f"isac-twin {__version__}",
        },
        "captures": captures,
        "annotations": [],
    }
    meta.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return len(captures), done


def _recorded(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    from twin.record import info, read

    file = path / "recording.mcap" if path.is_dir() else path
    about = info(file)["about"]
    site = about["sites"][0] if isinstance(about["sites"], list) else json.loads(about["sites"])[0]
    return about, (data for _, _, data in read(file, f"{site}.echo."))


def _live(given: argparse.Namespace) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    from twin.client import connect
    from twin.gym.hosts import about as asked

    keys = given_keys(given)
    about = asked(given.source, keys)

    def heard() -> Iterator[dict[str, Any]]:
        with connect(given.source, f"{about['sites'][0]}.echo.", keys=keys) as twin:
            for message in twin:
                if message.kind == "event":
                    yield message.data
            if twin.lost:
                raise LateArrival(f"{sum(twin.lost.values())} subframes were missed: this computer does not keep up")

    return about, heard()


def _file(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.name}.sigmf-{ending}")


def _datetime(t_ns: int) -> str:
    """Simulated time, counted from 1970: what SigMF calls a date."""
    whole = EPOCH + datetime.timedelta(seconds=t_ns // 10**9)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{t_ns % 10**9:09d}Z"
