"""The command line: ``twin run | check | schema | serve | record``; each says what went wrong in a sentence, never in a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

# One thread a library by default: the loop is one core's work and a second thread only adds noise to it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

__all__ = ["main", "parser"]

# Commands that live in a module of their own, which is read only when its command is asked for (or all of them, for completion).
MODULES = {
    "list": ("twin.shelf", "what there is: scenarios, and the kinds a scenario can choose from"),
    "new": ("twin.new", "write a commented scenario to start from"),
    "doctor": ("twin.doctor", "check the installation, and say what to do"),
    "watch": ("twin.watch", "look at a running twin in the terminal"),
    "report": ("twin.report", "draw a run's report again"),
    "diff": ("twin.diff", "say what differs between two runs"),
    "device check": ("twin.device_check", "hold a machine against the conformance suite"),
    "device inject": ("twin.device_inject", "break something in a served machine, or mend it"),
    "calibrate": ("twin.calibrate", "measure a device over the air and write its corrections"),
    "compare precoders": ("twin.compare_precoders", "precoders side by side: rate, bound, gain, time"),
    "compare plans": ("twin.compare_plans", "plans side by side: sensing time, updates, rate"),
    "control": ("twin.admin", "pause, step, pace, break, change or stop a running twin"),
    "serve control": ("twin.serve_control", "steer a running twin from outside with the built-in chain"),
    "serve iio": ("twin.serve_iio", "offer the simulated array to lab software, as an IIO context"),
    "dash": ("twin.dash", "look at a running twin, or a replay, in the browser"),
    "replay": ("twin.replay", "play a recording on the same sockets, or prove it"),
    "fork": ("twin.fork", "what if: a run again, another way from some time on"),
    "train": ("twin.train", "learn a precoder's weights, and write them with their card"),
    "invariants": ("twin.invariants", "check again the state that a run was stopped for"),
    "keys": ("twin.keys", "make keys, and say who may reach a twin from other computers"),
    "record iq": ("twin.record_iq", "write the sensing receiver's samples as SigMF"),
    "sweep": ("twin.sweep.command", "thousands of runs: grids, draws and seeds, into one table"),
    "completion": ("twin.completion", "print a shell's completion script"),
}
GROUPS = {"device": "hold a machine against the rules", "compare": "schemes side by side"}


def parser(asked: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line; ``asked`` names the command whose own module is read for its arguments ("": all)."""
    top = argparse.ArgumentParser(
        prog="twin",
        description="A real-time digital twin of a sub-THz integrated sensing and communication base station.",
        epilog="Start here:  twin run scenarios/street.yaml",
    )
    top.add_argument("--version", action="store_true", help="print the version and leave")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="play a scenario",
        description="Play a scenario and leave a run directory: the scenario as run, summary.json, kpi.csv and recording.mcap.",
        epilog="Examples:  twin run scenarios/smoke.yaml --seed 7\n"
        "           twin run scenarios/street.yaml --pace 1 --set sites.bs0.power_dbm=20 --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("file", type=Path, help="scenario file (YAML)")
    run.add_argument("--seed", type=int, help="replace the scenario's seed")
    run.add_argument("--duration", type=float, metavar="SECONDS", help="replace the scenario's duration")
    run.add_argument(
        "--pace",
        type=float,
        metavar="FACTOR",
        help="follow the wall clock: 1 is real time, 0.5 half as fast; default: as fast as possible",
    )
    run.add_argument(
        "--overrun", choices=("stretch", "hold", "skip", "ease", "abort"), help="what a paced run does when it is late"
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="sets",
        help="replace one value, e.g. sensing.dwells=1; may be given again",
    )
    run.add_argument(
        "--out", type=Path, metavar="DIR", help="run directory, which must not exist yet; default: runs/NAME-NUMBER"
    )
    run.add_argument(
        "--state",
        metavar="ENDPOINT",
        help="publish on this ZeroMQ endpoint (default from the scenario; 'none': do not publish)",
    )
    run.add_argument("--keys", metavar="NAME", help="key to answer other computers with (twin keys new NAME)")
    run.add_argument("--insecure", action="store_true", help="let other computers in without keys")
    run.add_argument(
        "--split",
        action="store_true",
        help="advance block by block instead of subframe by subframe; same result, slower",
    )
    run.add_argument(
        "--junit", type=Path, metavar="FILE", help="write what became of the scenario's `expect:` lines as JUnit XML"
    )
    run.add_argument(
        "--no-report",
        action="store_false",
        dest="report",
        help="leave report.html out; `twin report RUN` draws it later",
    )
    run.add_argument("--json", action="store_true", help="print the summary as JSON, and nothing else")

    check = commands.add_parser(
        "check",
        help="check a scenario and print what it means",
        description="Report every error of a scenario at once, or what it means: resolution, ambiguity, beams, link budget.",
    )
    check.add_argument("file", type=Path)
    check.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="sets",
        help="replace one value first; may be given again",
    )
    check.add_argument("--json", action="store_true", help="print facts or problems as JSON")

    commands.add_parser(
        "schema",
        help="print the JSON Schema of scenario files",
        description="Print the JSON Schema of scenario files, for editors.",
    )

    serve = commands.add_parser("serve", help="host a part of the twin in a process of its own")
    parts = serve.add_subparsers(dest="part", metavar="PART", required=True)
    device = parts.add_parser(
        "device",
        help="host a scenario's front end",
        description="Host a scenario's front end; a scenario whose device is {kind: remote, endpoint: …} drives it.",
    )
    device.add_argument("file", type=Path)
    device.add_argument(
        "--endpoint", default="tcp://127.0.0.1:5600", help="where to listen (default %(default)s; port 0 picks one)"
    )
    device.add_argument("--keys", metavar="NAME", help="key to answer other computers with (twin keys new NAME)")
    device.add_argument("--insecure", action="store_true", help="let other computers in without keys")
    device.add_argument("--seed", type=int, help="seed of the simulated noise; must be the run's own for equal results")
    device.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="sets",
        help="replace one value first; may be given again",
    )

    rec = commands.add_parser("record", help="look into, mend or convert a recording")
    verbs = rec.add_subparsers(dest="verb", metavar="VERB", required=True)
    info = verbs.add_parser("info", help="what a recording holds")
    info.add_argument("file", type=Path)
    info.add_argument("--json", action="store_true")
    recover = verbs.add_parser("recover", help="mend a recording whose writer was killed")
    recover.add_argument("file", type=Path)
    recover.add_argument("out", type=Path, nargs="?", help="the mended copy (default: NAME.recovered.mcap)")
    export = verbs.add_parser("export", help="convert to CSV, npz or Parquet")
    export.add_argument("file", type=Path)
    export.add_argument("out", type=Path)
    export.add_argument("--format", choices=("csv", "npz", "parquet"), help="default: from the name of OUT")

    groups = {
        group: commands.add_parser(group, help=line).add_subparsers(dest="verb", metavar="VERB", required=True)
        for group, line in GROUPS.items()
    } | {"serve": parts, "record": verbs}
    for name, (module, line) in MODULES.items():
        group, _, verb = name.rpartition(" ")
        own = groups.get(group, commands).add_parser(verb, help=line, description=line[:1].upper() + line[1:] + ".")
        own.set_defaults(module=module)
        if asked in ((group or verb), ""):
            import_module(module).arguments(own)
    return top


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, do it, and return the exit status: 0 done, 1 failed or an expectation broken, 2 wrong input, 130 interrupted."""
    given_words = sys.argv[1:] if argv is None else argv
    asked = next((word for word in given_words if not word.startswith("-")), None)
    top = parser(asked)
    given = top.parse_args(given_words)
    if given.version:
        from twin import __version__

        print(f"isac-twin {__version__}")
        return 0
    if given.command is None:
        top.print_help()
        return 2
    from hal.errors import InvariantError, LateArrival, Misuse, RemoteFault
    from twin.document import ScenarioError

    try:
        if "module" in given:
            return int(import_module(given.module).run(given))
        from twin import commands

        return int(getattr(commands, given.command)(given))
    except ScenarioError as wrong:  # each of its lines names its place in the file
        print(wrong, file=sys.stderr)
        return 2
    except Misuse as wrong:
        print(f"twin {given.command}: {wrong}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stderr.close()
        return 1
    except (RemoteFault, LateArrival, InvariantError, OSError) as fault:
        print(f"twin {given.command}: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"twin {given.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
