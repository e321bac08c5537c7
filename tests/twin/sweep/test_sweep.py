"""Sweeps played: the same table anywhere, nothing done twice, failures as rows."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hal.errors import Misuse, RemoteFault
from twin.__main__ import main
from twin.sweep import sweep
from twin.sweep.farm import Farm, farm
from twin.sweep.plot import plot

pytest.importorskip("pyarrow")
pytest.importorskip("distributed")

SMOKE = Path(__file__).parents[3] / "scenarios" / "smoke.yaml"
GRID = "over: {power_dbm: [20, 30], machine: {plain: {precoder.kind: delay_phase}, hot: {noise_figure_db: 13}}, seed: 0..2}"


def written(folder, text=GRID, duration_s=0.01):
    file = folder / "sweep.yaml"
    file.write_text(f"scenario: {SMOKE}\nset: {{duration_s: {duration_s}}}\n{text}\n")
    return file


def results(swept):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in swept.rows]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return sweep(written(folder), out=folder / "out", workers=0)


def test_every_case_is_a_row_in_order(alone):
    assert [row["index"] for row in alone.rows] == list(range(12))
    assert (alone.played, alone.known, alone.failed) == (12, 0, 0)
    assert len({row["hash"] for row in alone.rows}) == 12


def test_a_row_is_what_the_run_alone_gives(alone):
    from twin.build import run

    row = alone.rows[10]
    sets = {"duration_s": 0.01, "power_dbm": 30, "noise_figure_db": 13, "seed": 1}
    assert (row["power_dbm"], row["machine"], row["seed"]) == (30, "hot", 1)
    assert run(SMOKE, sets, write=False).summary["run"]["hash"] == row["hash"]


def test_nothing_is_played_twice_and_a_wider_sweep_adds_what_is_new(alone):
    file = alone.plan.file
    again = sweep(file, out=alone.folder, workers=0)
    assert (again.played, again.known) == (0, 12)
    assert results(again) == results(alone)
    wider = sweep(file, {"over.seed": "0..3"}, out=alone.folder, workers=0)
    assert (wider.played, wider.known) == (4, 12)
    narrow = sweep(file, {"over.seed": "0..2"}, out=alone.folder, workers=0)
    assert results(narrow) == results(alone)


def test_an_interrupted_sweep_goes_on_where_it_was(alone, tmp_path):
    def stop(done, total, seconds):
        if done == 5:
            raise KeyboardInterrupt

    first = sweep(written(tmp_path), out=tmp_path / "out", workers=0, say=stop)
    assert first.interrupted
    assert first.played == 5
    assert len(first.rows) == 5
    second = sweep(written(tmp_path), out=tmp_path / "out", workers=0)
    assert (second.played, second.known) == (7, 5)
    assert results(second) == results(alone)


def test_a_run_that_fails_is_a_row_with_its_error(tmp_path):
    # each value by itself is sound; of the four combinations one gives both users the same name
    text = "over: {a: {x: {users.0.name: u}, y: {users.0.name: v}}, b: {x: {users.1.name: u}, y: {users.1.name: w}}}"
    done = sweep(written(tmp_path, text), out=tmp_path / "out", workers=0)
    assert [row["error"] is None for row in done.rows] == [False, True, True, True]
    assert done.rows[0]["error"].startswith("ScenarioError: ")
    again = sweep(written(tmp_path, text), out=tmp_path / "out", workers=0)
    assert (again.played, again.known) == (1, 3)  # what failed is tried again


def test_points_that_are_known_well_get_no_more_seeds(tmp_path):
    text = "over: {seed: 0..9}\nuntil: ci(rate) < 500 %"
    done = sweep(written(tmp_path, text, 0.04), out=tmp_path / "out", workers=0)
    assert (done.stopped_early, len(done.rows)) == (1, 8)
    more = sweep(written(tmp_path, text.replace("500 %", "1e-12"), 0.04), out=tmp_path / "out", workers=0)
    assert (more.stopped_early, len(more.rows), more.played) == (0, 10, 2)


@pytest.mark.slow
def test_two_workers_one_of_them_killed_give_the_same_table(alone, tmp_path):
    killed = []
    with farm(2) as hands:

        def kill_one(done, total, seconds):
            if done >= 2 and not killed:
                (victim, *_) = hands.client.run(os.getpid).values()
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

        from twin.sweep.conduct import Conductor
        from twin.sweep.table import Journal

        with Journal(tmp_path / "rows.jsonl") as journal:
            conductor = Conductor(alone.plan, journal, None, kill_one)
            conductor.conduct(hands)
            rows = conductor.rows()
    assert killed
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in rows] == results(alone)


@pytest.mark.slow
def test_work_that_kills_its_worker_is_given_up_and_the_rest_is_done():
    with farm(1) as hands:
        done = [one for some in hands.spread(_deadly(), range(4)) for one in some]
    found = {item: (result, why) for item, result, why in done}
    assert sorted(found) == list(range(4))
    assert "died" in found[1][1]
    assert all(found[n] == (n * n, "") for n in range(4) if n != 1)


def _deadly():
    def work(n):
        if n == 1:
            os._exit(9)
        return n * n

    return work


@pytest.mark.slow
def test_scheduler_and_workers_that_already_run(alone, tmp_path):
    def start(*words):
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
        )

    started = [start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show")]
    try:
        for line in started[0].stdout:
            if "Scheduler at:" in line:
                address = line.split()[-1]
                break
        with pytest.raises(RemoteFault, match="has no workers"):
            sweep(written(tmp_path), out=tmp_path / "out", scheduler=address)
        for _ in range(2):
            started.append(start("dask_worker", address, "--nthreads", "1", "--no-dashboard"))
            for line in started[-1].stdout:
                if "Registered to" in line:
                    break
        assert results(sweep(written(tmp_path), out=tmp_path / "out", scheduler=address)) == results(alone)
    finally:
        for process in reversed(started):
            process.kill()
            process.communicate()


def test_a_scheduler_that_is_not_there_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("twin.sweep.farm.CONNECT_S", 0.2)
    with pytest.raises(RemoteFault, match="no dask scheduler answers there"):
        sweep(written(tmp_path), out=tmp_path / "out", scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "out").exists()


def test_workers_with_other_code_are_refused(tmp_path):
    from twin.sweep.farm import _same_everywhere
    from twin.sweep.play import identity

    class Cluster:
        def run(self, ask):
            return {"tcp://there:1": identity() | {"numpy": "1.0"}}

    with pytest.raises(Misuse, match=r"worker tcp://there:1 runs other versions: numpy 1\.0 there"):
        _same_everywhere(Cluster(), "tcp://there:0")


def test_in_this_process_without_dask():
    assert [one for some in Farm().spread(lambda n: 1 / n, [2, 0]) for one in some] == [
        (2, 0.5, ""),
        (0, None, "ZeroDivisionError: division by zero"),
    ]


def test_the_plot_shows_means_and_paired_differences(alone):
    drawn = plot(alone.folder, ys=("rate_gbps",), x="power_dbm", by="machine")
    assert drawn.file.stat().st_size > 10_000
    rows = [r for r in alone.rows if r["power_dbm"] == 30 and r["machine"] == "plain"]
    shown = next(p for p in drawn.told["figures"]["rate_gbps"]["plain"] if p["x"] == 30)
    assert shown["mean"] == pytest.approx(sum(r["rate_gbps"] for r in rows) / 3)
    assert "rate_gbps: hot" in drawn.sentences[0]


def test_the_front_is_what_nothing_beats_in_both(alone):
    drawn = plot(alone.folder, pareto=("rate_gbps", "beams.delay_us"))
    points = {}
    for row in alone.rows:
        points.setdefault(row["point"], []).append((row["rate_gbps"], row["beams.delay_us"]))
    means = [tuple(sum(v) / len(v) for v in zip(*rows, strict=True)) for rows in points.values()]
    beaten = [any(o[0] >= m[0] and o[1] <= m[1] and o != m for o in means) for m in means]
    assert len(drawn.told["front"]) == beaten.count(False)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"ys": ("rate",)}, "no such key figure; nearest: rate_gbps"),
        ({"x": "powr"}, "no such parameter; nearest: power_dbm"),
        ({"out": Path("a.gif")}, "must end in .png"),
    ],
)
def test_a_wrong_plot_is_said(alone, named, said):
    with pytest.raises(Misuse, match=said):
        plot(alone.folder, **named)


def test_the_command_prints_a_table_and_how_to_draw_it(tmp_path, capsys):
    file = written(tmp_path, "over: {power_dbm: [20, 30], seed: 0..1}")
    assert main(["sweep", str(file), "--workers", "0", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "4 runs played" in printed
    assert "twin sweep plot" in printed
    assert "±" in printed
    assert main(["sweep", "plot", str(tmp_path / "out")]) == 0
    assert "drawn in" in capsys.readouterr().out
