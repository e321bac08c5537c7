"""Break what a run depends on, and see what becomes of it: ``python -m tools.faults [--tries 3] [--only kill_twin] [--json] [--write]``.

Every try is processes that are really killed, stopped, cut off or starved at a random moment. It has survived if the run went on to its end, or
ended with a sentence that says why; if its recording then holds, bit for bit, what a run left in peace recorded, up to half a second before the
blow; and if no process of it lives on and its ports are free again. All else is lost. ``--write`` puts the table into ``docs/faults.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hal.errors import Misuse, RemoteFault
from twin.record import Row, read, recover, rows

__all__ = ["FAULTS", "Scene", "campaign", "once"]

HOME = Path(__file__).parents[1]
SMOKE, PAGE = HOME / "scenarios" / "smoke.yaml", HOME / "docs" / "faults.md"
CONTROLLER = HOME / "tools" / "examples" / "controller.py"
TWIN = (sys.executable, "-m", "twin")
SECONDS = 2.0  # simulated, of the run that is hurt
PATIENCE_S = 120.0  # wall time after which a process hangs
KEPT_S = 0.5  # of wall time before a kill that may be lost
BEGIN, END = "<!-- python -m tools.faults --write: begin -->", "<!-- end -->"


class LostError(Exception):
    """A promise was broken: which, and what was found."""


@dataclass
class Scene:
    """Where one try takes place, and everybody it started."""

    folder: Path
    chance: random.Random
    reference: list[Row]  # of a run left in peace
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    def port(self) -> int:
        """A free port whose successor is free too."""
        while True:
            with closing(socket.socket()) as one, closing(socket.socket()) as other, contextlib.suppress(OSError):
                one.bind(("127.0.0.1", 0))
                port = int(one.getsockname()[1])
                other.bind(("127.0.0.1", port + 1))
                self.ports += [port, port + 1]
                return port

    def start(self, *words: object, **options: Any) -> subprocess.Popen[str]:
        """A process of the try, the leader of a session of its own."""
        err = (self.folder / f"{len(self.started)}.err").open("w", encoding="utf-8")
        with err:
            process = subprocess.Popen(
                [str(word) for word in words],
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                start_new_session=True,
                **options,
            )
        self.started.append(process)
        return process

    def twin(self, *more: object, seconds: float = SECONDS, **options: Any) -> subprocess.Popen[str]:
        """A twin that records to ``run``."""
        words = ("run", SMOKE, "--no-report", "--duration", seconds, "--set", "sensing.fidelity=bound")
        return self.start(*TWIN, *words, "--out", self.folder / "run", *more, **options)

    def device(self, endpoint: str = "tcp://127.0.0.1:0") -> tuple[subprocess.Popen[str], str]:
        """The twin's machine in a process of its own, and where it listens."""
        server = self.start(*TWIN, "serve", "device", SMOKE, "--endpoint", endpoint)
        assert server.stdout is not None
        told = server.stdout.readline()
        if not told:
            raise LostError(f"no device: {self.said(server)}")
        return server, told.split()[-1]

    def said(self, process: subprocess.Popen[str]) -> str:
        """What a process wrote to its standard error."""
        return (self.folder / f"{self.started.index(process)}.err").read_text(encoding="utf-8", errors="replace")

    def moment(self, process: subprocess.Popen[str]) -> None:
        """Wait until the run has recorded something, and then for a random while."""
        recording, deadline = self.folder / "run" / "recording.mcap", time.monotonic() + PATIENCE_S
        while not (recording.exists() and recording.stat().st_size > 20_000):
            if process.poll() is not None:
                raise LostError(f"the run ended before anything was done to it: {self.said(process)}")
            if time.monotonic() > deadline:
                raise LostError("the run never began")
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.chance.uniform(0.0, 1.2))

    def ended(self, process: subprocess.Popen[str]) -> int:
        """The exit status of a process; LostError if it hangs."""
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise LostError(f"hangs: {self.said(process)}") from None

    def recorded(self, killed_ns: int | None = None) -> tuple[list[Row], float]:
        """The records that can be had of the run, and the wall time lost before ``killed_ns``; each must be the reference's."""
        source, mended = self.folder / "run" / "recording.mcap", self.folder / "mended.mcap"
        recover(source, mended)
        kept = list(rows(mended))
        wrong = sum(
            (row.topic, row.t_ns, row.data) != (other.topic, other.t_ns, other.data)
            for row, other in zip(kept, self.reference, strict=False)
        )
        if wrong:
            raise LostError(f"{wrong} of {len(kept)} records are wrong")
        lost_s = (killed_ns - kept[-1].wall_ns) * 1e-9 if killed_ns is not None and kept else 0.0
        if lost_s > KEPT_S and len(kept) < len(self.reference):
            raise LostError(f"{lost_s:.2f} s before the kill are not recorded")
        return kept, max(lost_s, 0.0)

    def finished(self, process: subprocess.Popen[str]) -> None:
        """The run went on to its end as if nothing had been: status 0, and every record the reference's."""
        status = self.ended(process)
        if status != 0:
            raise LostError(f"status {status}: {self.said(process)[-400:]}")
        kept, _ = self.recorded()
        if len(kept) != len(self.reference):
            raise LostError(f"{len(kept)} records instead of {len(self.reference)}")

    def in_words(self, process: subprocess.Popen[str], says: str, statuses: tuple[int, ...] = (1,)) -> str:
        """The run ended with one of these statuses and a sentence, no traceback, that matches ``says``; the sentence."""
        status, said = self.ended(process), self.said(process)
        if status not in statuses or "Traceback" in said or not re.search(says, said):
            raise LostError(f"status {status}, said: {said[-500:]!r}")
        return next(line for line in said.splitlines() if re.search(says, line))

    def summary(self) -> dict[str, Any]:
        """The run's own."""
        found: dict[str, Any] = json.loads((self.folder / "run" / "summary.json").read_text(encoding="utf-8"))
        return found

    def close(self) -> None:
        """End what was started; LostError where something of it lived on, or a port is still held."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.terminate()
        sessions = {process.pid for process in self.started}
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        orphans = [pid for pid, session in alive() if session in sessions]
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        held = []
        for port in self.ports:
            with closing(socket.socket()) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    one.bind(("127.0.0.1", port))
                except OSError:
                    held.append(port)
        if orphans or held:
            raise LostError(f"processes {orphans} live on, ports {held} are held")


def alive() -> Iterator[tuple[int, int]]:
    """Process and session of everybody who is not a zombie."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                words = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
                if words[0] not in "ZX":
                    yield int(entry.name), int(words[3])


class Proxy:
    """A TCP proxy that can be told to hold bytes back, to swallow some, and to cut."""

    def __init__(self, port: int, target: int) -> None:
        self.target, self.delay_s, self.swallow = target, 0.0, 0
        self.cut = threading.Event()  # cut at once, and refuse from then on
        self.carried = 0
        self._open = True
        self._pairs: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def sever(self) -> None:
        """Cut every connection there is; new ones are taken."""
        for one in self._pairs:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut, and take no more."""
        self._open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.sever()
        for thread in self._threads:
            thread.join(5)
        for one in self._pairs:
            one.close()

    def _accept(self) -> None:
        while self._open:
            try:
                near, _ = self._listener.accept()
            except OSError:
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:  # whoever asked is to see that, and ask again
                near.close()
                continue
            self._pairs += [near, far]
            for one, other in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._carry, args=(one, other), daemon=True))
                self._threads[-1].start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if self.delay_s:
                    time.sleep(self.delay_s)
                lost = min(self.swallow, len(data))
                self.swallow -= lost
                self.carried += len(data) - lost
                other.sendall(data[lost:])
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(scene: Scene, target: int) -> Iterator[tuple[Proxy, int]]:
    port = scene.port()
    proxy = Proxy(port, target)
    try:
        yield proxy, port
    finally:
        proxy.close()


# ---------------------------------------------------------------------------------------------------------------- what is done


def kill_twin(scene: Scene) -> str:
    """``kill -9`` of the twin."""
    run = scene.twin()
    scene.moment(run)
    run.kill()
    killed_ns = time.time_ns()
    scene.ended(run)
    kept, lost_s = scene.recorded(killed_ns)
    return f"recovered: {len(kept)} records, {lost_s:.2f} s lost"


def steered(scene: Scene, port: int) -> subprocess.Popen[str]:
    """A twin in lockstep that waits for the controller of tools/examples."""
    lockstep = ("--set", "clock.mode=lockstep", "--set", "controllers.wait_for=[nearest]")
    return scene.twin("--state", f"tcp://127.0.0.1:{port}", *lockstep)


def steered_to_its_end(scene: Scene, run: subprocess.Popen[str]) -> None:
    """The run went on to its end with or without its controller; what it recorded is one story."""
    status = scene.ended(run)
    if status != 0:
        raise LostError(f"status {status}: {scene.said(run)[-400:]}")
    kept = [row.t_ns for row in rows(scene.folder / "run" / "recording.mcap") if row.topic == "bs0.kpi."]
    if kept != [5_000_000 * k for k in range(round(SECONDS / 5e-3))]:
        raise LostError(f"{len(kept)} subframes recorded")


def kill_controller(scene: Scene) -> str:
    """``kill -9`` of an outside controller."""
    port = scene.port()
    run = steered(scene, port)
    controller = scene.start(sys.executable, CONTROLLER, f"tcp://127.0.0.1:{port + 1}")
    scene.moment(run)
    controller.kill()
    steered_to_its_end(scene, run)
    told = scene.summary()["controllers"]
    if not told.get("dropped"):
        raise LostError(f"the loss was not noticed: {told}")
    return f"went on with the built-in chain, {told['answered']} answers before"


def far(endpoint: str, timeout_ms: int = 2000) -> tuple[str, ...]:
    """Words that give the twin its machine elsewhere."""
    device = f"sites.bs0.device={{kind: remote, endpoint: '{endpoint}', timeout_ms: {timeout_ms}}}"
    return "--set", device, "--set", "sites.bs0.patience_ms=200"


def kill_device(scene: Scene) -> str:
    """``kill -9`` of the device server."""
    server, endpoint = scene.device()
    run = scene.twin(*far(endpoint))
    scene.moment(run)
    server.kill()
    said = scene.in_words(run, "safe state|no answer|was closed")
    told = scene.summary()["run"]
    kept = [row.t_ns for row in rows(scene.folder / "run" / "recording.mcap") if row.topic == "bs0.kpi."]
    if kept != [5_000_000 * k for k in range(told["subframes"])] or not told["failure"]:
        raise LostError(f"{len(kept)} subframes recorded, the summary says {told}")
    return f"ended: {said[:90]}"


def restart_device(scene: Scene) -> str:
    """``kill -9`` of the device server, and another in its place."""
    port = scene.port()
    server, endpoint = scene.device(f"tcp://127.0.0.1:{port}")
    run = scene.twin(*far(endpoint), "--set", "sites.bs0.patience_ms=100000")
    scene.moment(run)
    server.kill()
    server.wait()
    scene.device(endpoint)
    steered_to_its_end(scene, run)
    served = list(read(scene.folder / "run" / "recording.mcap", "bs0.kpi."))[-20:]
    if not all(kpi["rate_bps"].any() for _, _, kpi in served):
        raise LostError("nothing was served after the restart")
    return "went on with the new one"


MONITOR = """
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.subscribe(b"")
socket.connect(sys.argv[1])
socket.recv_multipart()
print("heard", flush=True)
while "read" in sys.argv:
    socket.recv_multipart()
import time
time.sleep(1000)
"""


def watched(scene: Scene, how: str, *more: object) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """A twin on the bus, and somebody who listens to all it says."""
    state = f"tcp://127.0.0.1:{scene.port()}"
    monitor = scene.start(sys.executable, "-c", MONITOR, state, how)
    run = scene.twin("--state", state, *more)
    assert monitor.stdout is not None
    monitor.stdout.readline()
    return run, monitor


def kill_monitor(scene: Scene) -> str:
    """``kill -9`` of a monitor."""
    run, monitor = watched(scene, "read")
    scene.moment(run)
    monitor.kill()
    scene.finished(run)
    return "went on, all records equal"


def slow_subscriber(scene: Scene) -> str:
    """A subscriber that never reads."""
    run, _ = watched(scene, "never")
    peak_mb = 0.0
    while run.poll() is None:
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{run.pid}/status").read_text(encoding="ascii")
            line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
            peak_mb = max(peak_mb, int(line.split()[1]) / 1e3)
        time.sleep(0.05)
    scene.finished(run)
    return f"went on, all records equal, at most {peak_mb:.0f} MB"


def full_disk(scene: Scene) -> str:
    """A full disk (file-size limit)."""
    limit = scene.chance.randrange(20_000, 200_000)
    run = scene.twin(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    said = scene.in_words(run, r"did not fit|kpi\.csv")
    kept, _ = scene.recorded()
    ran = scene.summary()["run"]["subframes"] if (scene.folder / "run" / "summary.json").exists() else 0
    return f"ended at {limit} bytes: {said[-70:]} ({len(kept)} records, {ran} subframes)"


def port_taken(scene: Scene) -> str:
    """The bus's port is taken."""
    port = scene.port() + scene.chance.randrange(2)  # its own, or that of its control socket
    with closing(socket.create_server(("127.0.0.1", port))):
        run = scene.twin("--state", f"tcp://127.0.0.1:{min(scene.ports)}")
        said = scene.in_words(run, f"{port}", (1, 2))
    if (scene.folder / "run").exists():
        raise LostError("a run directory is left of a run that never began")
    return f"ended: {said[:90]}"


def stepping_clock(scene: Scene) -> str:
    """A clock that steps forwards and backwards."""
    steps = [scene.chance.choice((-1, 1)) * scene.chance.uniform(0.02, 7200) for _ in range(3)]
    run = scene.start(sys.executable, "-m", "tools.faults", "--stepped", *steps, "--folder", scene.folder / "run")
    scene.finished(run)
    return "went on, all records equal, steps of " + ", ".join(f"{step:+.0f} s" for step in steps)


def stepped(steps: list[float], folder: Path) -> int:
    """A paced run whose clock steps by so much at subframes 30, 60, ...; the recording goes to ``folder``."""
    from functools import partial

    from twin import build
    from twin.engine import Engine

    offset, subframes = [0], [0]

    def clock() -> int:
        return time.perf_counter_ns() + offset[0]

    class Stepped(Engine):
        def pace(self, t_ns: int) -> int:
            subframes[0] += 1
            if subframes[0] % 30 == 0 and steps:
                offset[0] += round(steps.pop(0) * 1e9)
            return super().pace(t_ns)

    build.Engine = partial(Stepped, clock=clock)  # type: ignore[assignment, misc]
    paced = {"clock.mode": "paced", "clock.factor": 1.0, "sensing.fidelity": "bound", "duration_s": SECONDS}
    build.run(SMOKE, paced, out=folder, keep=False)
    return 0


def stop_twin(scene: Scene) -> str:
    """SIGSTOP of the twin for 2 s."""
    run = scene.twin("--pace", 1)
    scene.moment(run)
    run.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    run.send_signal(signal.SIGCONT)
    scene.finished(run)
    late = scene.summary()["clock"]["late"]
    if not late:
        raise LostError("two seconds were not noticed")
    return f"went on, all records equal, {late} deadlines said to be missed"


def stop_device(scene: Scene) -> str:
    """SIGSTOP of the device server for 2 s."""
    server, endpoint = scene.device()
    run = scene.twin(*far(endpoint, 10_000))
    scene.moment(run)
    server.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    server.send_signal(signal.SIGCONT)
    scene.finished(run)
    return "waited, all records equal"


def stop_controller(scene: Scene) -> str:
    """SIGSTOP of an outside controller for 2 s."""
    port = scene.port()
    run = steered(scene, port)
    controller = scene.start(sys.executable, CONTROLLER, f"tcp://127.0.0.1:{port + 1}")
    scene.moment(run)
    controller.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    controller.send_signal(signal.SIGCONT)
    steered_to_its_end(scene, run)
    return f"waited in lockstep, {scene.summary()['controllers']['answered']} answers"


def proxied_device(scene: Scene, harm: Callable[[Proxy], None], timeout_ms: int = 1500) -> subprocess.Popen[str]:
    """A twin whose machine is behind a proxy, and what is done to that; the twin, ended."""
    _, endpoint = scene.device()
    with proxied(scene, int(endpoint.rpartition(":")[2])) as (proxy, port):
        run = scene.twin(*far(f"tcp://127.0.0.1:{port}", timeout_ms))
        scene.moment(run)
        harm(proxy)
        scene.ended(run)
    return run


def went_on_or_said(scene: Scene, run: subprocess.Popen[str]) -> str:
    """The run went on to its end, or ended in words; either way the recording is one story."""
    told = scene.summary()["run"]
    kept = [row.t_ns for row in rows(scene.folder / "run" / "recording.mcap") if row.topic == "bs0.kpi."]
    if kept != [5_000_000 * k for k in range(told["subframes"])]:
        raise LostError(f"{len(kept)} subframes recorded of {told['subframes']}")
    if run.returncode == 0:
        return "went on"
    return f"ended: {scene.in_words(run, 'safe state|no answer|closed|nonsense|refused')[:90]}"


def delay_device(scene: Scene) -> str:
    """A proxy that delays, between twin and device."""
    delay_s = scene.chance.uniform(0.001, 0.005)
    run = proxied_device(scene, lambda proxy: setattr(proxy, "delay_s", delay_s), 10_000)
    scene.finished(run)
    return f"went on, all records equal, {1e3 * delay_s:.1f} ms each way"


def drop_device(scene: Scene) -> str:
    """A proxy that drops bytes, between twin and device."""
    count = scene.chance.randrange(1, 5000)
    run = proxied_device(scene, lambda proxy: setattr(proxy, "swallow", count))
    return f"{went_on_or_said(scene, run)} ({count} bytes dropped)"


def cut_device(scene: Scene) -> str:
    """A proxy that cuts once, between twin and device."""
    return went_on_or_said(scene, proxied_device(scene, Proxy.sever))


def refuse_device(scene: Scene) -> str:
    """A proxy that cuts for good, between twin and device."""
    run = proxied_device(scene, Proxy.close)
    return f"ended: {scene.in_words(run, 'safe state|no answer|closed')[:90]}"


def proxied_controller(scene: Scene, harm: Callable[[Proxy], None]) -> None:
    """A twin whose controller is behind a proxy, and what is done to that; the twin must go on to its end."""
    state = scene.port()
    run = steered(scene, state)
    with proxied(scene, state + 1) as (proxy, port):
        scene.start(sys.executable, CONTROLLER, f"tcp://127.0.0.1:{port}")
        scene.moment(run)
        harm(proxy)
        steered_to_its_end(scene, run)


def delay_controller(scene: Scene) -> str:
    """A proxy that delays, between twin and controller."""
    delay_s = scene.chance.uniform(0.001, 0.005)
    proxied_controller(scene, lambda proxy: setattr(proxy, "delay_s", delay_s))
    return f"waited in lockstep, {scene.summary()['controllers']['answered']} answers"


def drop_controller(scene: Scene) -> str:
    """A proxy that drops bytes, between twin and controller."""
    count = scene.chance.randrange(1, 5000)
    proxied_controller(scene, lambda proxy: setattr(proxy, "swallow", count))
    return f"went on, {scene.summary()['controllers']['answered']} answers ({count} bytes dropped)"


def cut_controller(scene: Scene) -> str:
    """A proxy that cuts, between twin and controller."""
    proxied_controller(scene, Proxy.sever)
    return f"went on, {scene.summary()['controllers']['answered']} answers"


FAULTS: dict[str, Callable[[Scene], str]] = {
    one.__name__: one
    for one in (
        kill_twin,
        kill_controller,
        kill_device,
        restart_device,
        kill_monitor,
        full_disk,
        port_taken,
        stepping_clock,
        stop_twin,
        stop_device,
        stop_controller,
        slow_subscriber,
        delay_device,
        drop_device,
        cut_device,
        refuse_device,
        delay_controller,
        drop_controller,
        cut_controller,
    )
}


def left_in_peace(folder: Path) -> list[Row]:
    """Every record of the run that nothing is done to."""
    from twin.build import run

    run(SMOKE, {"sensing.fidelity": "bound", "duration_s": SECONDS}, out=folder, keep=False)
    return list(rows(folder / "recording.mcap"))


def once(name: str, seed: int, reference: list[Row]) -> tuple[bool, str]:
    """One try: whether it survived, and what happened."""
    with tempfile.TemporaryDirectory(prefix="twin-fault-") as folder:
        scene = Scene(Path(folder), random.Random(seed), reference)
        try:
            try:
                told = FAULTS[name](scene)
            finally:
                scene.close()
            return True, told
        except (LostError, Misuse, RemoteFault, OSError, KeyError, AssertionError) as lost:
            return False, f"{type(lost).__name__}: {lost}"


def campaign(names: list[str], tries: int, seed: int, progress: bool = False) -> dict[str, dict[str, Any]]:
    """``tries`` of each fault: how many survived, and what was said of each."""
    with tempfile.TemporaryDirectory() as folder:
        reference = left_in_peace(Path(folder) / "run")
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        told = []
        for k in range(tries):
            told.append(once(name, seed * 1000 + k, reference))
            if progress:
                print(
                    f"{name} {k + 1}/{tries}: {'' if told[-1][0] else 'LOST '}{told[-1][1]}",
                    file=sys.stderr,
                    flush=True,
                )
        survived = sum(alive for alive, _ in told)
        what = str(FAULTS[name].__doc__).rstrip(".")
        found[name] = {
            "what": what,
            "tries": tries,
            "survived": survived,
            "lost": tries - survived,
            "told": [t for _, t in told],
        }
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """The fault table, in Markdown."""
    lines = [
        "| Fault | Tries | Survived | Lost | What became of it, the last time |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for one in found.values():
        last = re.sub(r"(/[\w.-]+)+/", "", one["told"][-1]).replace("|", "/")
        lines.append(f"| {one['what']} | {one['tries']} | {one['survived']} | {one['lost']} | {last} |")
    return "\n".join(lines)


def merged(held: str, new: str) -> str:
    """A table with rows of another put in the place of its own about the same fault, in the order of ``FAULTS``."""
    both = {
        line.split("|")[1].strip(): line for text in (held, new) for line in text.splitlines() if line.startswith("|")
    }
    order = ["Fault", "---", *(str(fault.__doc__).rstrip(".") for fault in FAULTS.values())]
    return "\n".join(both[name] for name in order if name in both)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.faults", description=__doc__)
    parser.add_argument("--tries", type=int, default=3, help="of each fault (default %(default)s)")
    parser.add_argument(
        "--only",
        action="append",
        choices=tuple(FAULTS),
        metavar="NAME",
        help=f"one of {', '.join(FAULTS)}; may be given again",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the rows into the table of docs/faults.md")
    parser.add_argument("--stepped", type=float, nargs="+", help=argparse.SUPPRESS)  # the process whose clock steps
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stepped:
        return stepped(given.stepped, given.folder)
    if not given.tries > 0:
        parser.error(f"--tries {given.tries}: must be > 0")
    found = campaign(given.only or list(FAULTS), given.tries, given.seed, progress=not given.json)
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        print(table(found))
    if given.write:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        held, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{merged(held, table(found))}\n{END}{after}", encoding="utf-8")
    return 0 if all(not one["lost"] for one in found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
