"""Time: integers only, absolute deadlines, five overrun policies, and a ledger that adds up; no test here sleeps."""

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from hal.errors import LateArrival, Misuse
from twin.engine import Engine, Ledger, Pacing, Tally, table

PERIOD = 5_000_000


class Wall:
    """A wall clock that moves only when read, slept on or worked against; a sleep wakes late."""

    def __init__(self, read_ns=40, oversleep_ns=55_000):
        self.now, self.read_ns, self.oversleep_ns = 123_456_789, read_ns, oversleep_ns
        self.slept, self.reads = [], 0

    def clock(self):
        self.reads += 1
        self.now += self.read_ns
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.slept.append(seconds)
        self.now += round(seconds * 1e9) + self.oversleep_ns

    def engine(self, **pacing):
        pacing.setdefault("mode", "paced")
        return Engine(Pacing(**pacing), clock=self.clock, sleep=self.sleep, cpu=lambda: self.now)


def play(wall, engine, work_ns):
    """Run subframes that take ``work_ns`` of wall time each; return wall time at each one's release, from the epoch on."""
    engine.start()
    epoch, released = wall.now, []

    def site():
        for k, work in enumerate(work_ns):
            yield engine.until((k + 1) * PERIOD)
            wall.now += work
            engine.pace(int(engine.now))
            released.append(wall.now - epoch)

    engine.process(site())
    engine.run()
    return np.array(released)


# ------------------------------------------------------------------------------------------------------------ integers


@pytest.mark.parametrize("delay", [1.0, 0.5, True, np.float64(2), float("nan"), float("inf")])
def test_a_delay_that_is_not_an_integer_is_refused(delay):
    engine = Engine()
    with pytest.raises(Misuse, match=r"delay = .*integer of nanoseconds"):
        engine.timeout(delay)
    assert engine.peek() == simpy.core.Infinity


def test_time_stays_an_int_whatever_integer_goes_in():
    engine = Engine()
    engine.timeout(np.int64(7))
    engine.run(until=np.int64(9))
    assert type(engine.now) is int
    assert engine.now == 9


def test_run_until_a_float_is_refused_though_simpy_would_turn_the_clock_into_one():
    plain = simpy.Environment()
    plain.run(until=5e6)
    assert type(plain.now) is float
    with pytest.raises(Misuse, match=r"until = 5000000\.0"):
        Engine().run(until=5e6)


def test_times_in_the_past_are_refused_with_both_numbers():
    engine = Engine(initial_ns=100)
    with pytest.raises(Misuse, match=r"until\(40\).* 60 ns before .* t = 100 ns"):
        engine.until(40)
    with pytest.raises(Misuse, match=r"until=100.*t = 100 ns"):
        engine.run(until=100)
    with pytest.raises(Misuse, match="initial_ns"):
        Engine(initial_ns=0.0)


def test_until_now_is_an_event_of_this_instant():
    engine = Engine()
    seen = []

    def process():
        yield engine.until(0)
        seen.append(engine.now)
        yield engine.until(30)
        seen.append(engine.now)

    engine.process(process())
    engine.run()
    assert seen == [0, 30]


def test_large_times_stay_exact():
    engine = Engine(initial_ns=2**60)
    engine.run(until=2**60 + 1)
    assert engine.now == 2**60 + 1  # a float would have lost the nanosecond


# -------------------------------------------------------------------------------------------------------------- pacing


def test_free_and_lockstep_never_wait():
    for mode in ("free", "lockstep"):
        wall = Wall()
        engine = wall.engine(mode=mode)
        play(wall, engine, [9 * PERIOD, 0, 0])
        assert wall.slept == []
        assert engine.lag_ns == 0
        assert engine.report()["late"] == 0


@pytest.mark.parametrize("factor", [1.0, 0.5, 3.0])
def test_deadlines_are_absolute_so_late_wakes_do_not_add_up(factor):
    wall = Wall(oversleep_ns=150_000)  # wakes 150 us after every deadline
    engine = wall.engine(factor=factor, spin_ns=0)
    released = play(wall, engine, [100_000] * 200)
    deadline = np.round(np.arange(1, 201) * PERIOD / factor)
    lag = released - deadline
    assert np.all((lag > 140_000) & (lag < 160_000))  # the 200th is no later than the first
    assert engine.late == 0
    assert engine.ledger.misses == 0


def test_the_last_part_of_a_wait_is_spun():
    wall = Wall(oversleep_ns=55_000)
    engine = wall.engine(spin_ns=100_000)
    released = play(wall, engine, [1_000_000] * 10)
    lag = released - np.arange(1, 11) * PERIOD
    assert np.all((lag >= 0) & (lag <= 2 * wall.read_ns))
    assert np.allclose(wall.slept, 3.9e-3, atol=2e-6)
    assert wall.reads > 10 * 45_000 / wall.read_ns  # sleeping alone would have read it a few times


def test_a_machine_that_oversleeps_is_woken_earlier():
    wall = Wall(oversleep_ns=250_000)
    lag = play(wall, wall.engine(spin_ns=100_000), [1_000_000] * 40) - np.arange(1, 41) * PERIOD
    assert 149_000 < lag[0] < 151_000
    assert np.all(lag[20:] <= 2 * wall.read_ns)
    hopeless = Wall(oversleep_ns=800_000)  # spinning is bounded: five times what was asked for
    play(hopeless, hopeless.engine(spin_ns=100_000), [1_000_000] * 40)
    assert hopeless.slept[-1] >= 3.19e-3


def test_no_spin_means_sleep_only():
    wall = Wall(oversleep_ns=55_000)
    reads = wall.reads
    released = play(wall, wall.engine(spin_ns=0), [0] * 5)
    assert np.all(released - np.arange(1, 6) * PERIOD >= 54_000)
    assert wall.reads - reads < 80


LATE = [0, 12_000_000, 0, 0, 0, 0]  # the second subframe takes 2.4 periods


def test_stretch_slips_the_epoch_by_the_lateness():
    wall = Wall(oversleep_ns=0)
    engine = wall.engine(overrun="stretch")
    released = play(wall, engine, LATE)
    late = 12_000_000 - PERIOD
    want = np.array([PERIOD, PERIOD + 12_000_000, *(PERIOD * np.arange(3, 7) + late)])
    assert np.all(np.abs(released - want) < 2_000)
    assert engine.late == 1
    assert abs(engine.slipped_ns - late) < 1_000
    assert engine.skipped == 0


def test_hold_keeps_the_epoch_and_catches_up():
    wall = Wall(oversleep_ns=0)
    engine = wall.engine(overrun="hold")
    released = play(wall, engine, LATE)
    want = np.array([1, 3.4, 3.4, 4, 5, 6]) * PERIOD  # the third does not wait, the fourth is in time again
    assert np.all(np.abs(released - want) < 2_000)
    assert engine.late == 2
    assert engine.slipped_ns == 0


def test_skip_drops_to_the_next_deadline_of_the_grid_and_counts():
    wall = Wall(oversleep_ns=0)
    engine = wall.engine(overrun="skip")
    released = play(wall, engine, LATE)
    want = np.array([1, 4, 5, 6, 7, 8]) * PERIOD  # deadlines 2 and 3 were dropped
    assert np.all(np.abs(released - want) < 2_000)
    assert engine.late == 1
    assert engine.skipped == 2
    assert engine.slipped_ns == 2 * PERIOD


def test_ease_lowers_quality_from_a_late_subframe_until_it_was_in_time_for_a_while():
    wall = Wall(oversleep_ns=0)
    engine = wall.engine(overrun="ease")
    engine.start()
    seen = []
    for k in range(1, 120):
        wall.now += 12_000_000 if k in (5, 30) else 0
        engine.pace(k * PERIOD)
        seen.append(engine.eased)
    # late at 5 and, catching up, at 6; again at 30 and 31: forty in time after that
    assert seen == [5 <= k < 31 + 40 for k in range(1, 120)]
    assert (engine.late, engine.slipped_ns, engine.skipped) == (4, 0, 0)


@pytest.mark.parametrize("overrun", ["stretch", "hold", "skip"])
def test_no_other_policy_touches_quality(overrun):
    wall = Wall(oversleep_ns=0)
    engine = wall.engine(overrun=overrun)
    play(wall, engine, LATE)
    assert not engine.eased


def test_an_hour_does_not_drift():
    """Deadlines are counted from the epoch in whole nanoseconds: subframe 720 000 is as much in time as the first, to the nanosecond, whatever the factor."""
    for factor, overrun in ((1.0, "hold"), (0.3, "stretch"), (1 / 7, "skip")):
        wall = Wall(read_ns=1_000, oversleep_ns=0)
        engine = wall.engine(factor=factor, overrun=overrun)
        engine.start()
        epoch = wall.now
        for hour_ns in (0, 3_600_000_000_000, 36_000_000_000_000):
            wall.now = epoch + round(hour_ns / factor)  # nothing of what was between moves a deadline
            for k in range(1, 4):
                engine.pace(hour_ns + k * PERIOD)
                assert engine.lag_ns <= 3 * wall.read_ns
                assert abs(wall.now - epoch - (hour_ns + k * PERIOD) / factor) <= 3 * wall.read_ns
        assert engine.late == 0


def test_abort_names_the_subframe_the_lateness_and_the_stage():
    wall = Wall()
    engine = wall.engine(overrun="abort")
    engine.start()
    engine.pace(PERIOD)
    with engine.ledger.stage("sensing"):
        wall.now += 7_000_000
    with engine.ledger.stage("kpi"):
        wall.now += 20_000
    with pytest.raises(
        LateArrival, match=r"t = 10000000 ns was 20\d\d us late.*5000 us.*longest stage: sensing, 7000 us"
    ):
        engine.pace(2 * PERIOD)


@given(
    st.lists(st.integers(0, 30_000_000), min_size=1, max_size=40), st.sampled_from(["stretch", "hold", "skip", "ease"])
)
def test_no_policy_releases_before_its_deadline_or_changes_the_order_of_time(work, overrun):
    wall = Wall(oversleep_ns=0, read_ns=1_000)
    engine = wall.engine(overrun=overrun)
    released = play(wall, engine, work)
    assert np.all(released >= np.arange(1, len(work) + 1) * PERIOD)
    assert engine.now == len(work) * PERIOD
    tick = 40_000  # what reading this clock costs a subframe
    if overrun in ("hold", "ease"):  # free to catch up, so never later than a queue that serves in order
        queue = 0
        for k, w in enumerate(work):
            queue = max(queue + w + tick, (k + 1) * PERIOD)
            assert released[k] <= queue + tick
    if overrun == "skip":
        assert engine.slipped_ns == engine.skipped * PERIOD
        assert np.all(released % PERIOD < 2 * tick)  # on the grid, all of them


def test_without_start_the_first_subframe_is_in_time():
    wall = Wall(oversleep_ns=0)
    engine = wall.engine(overrun="abort")
    wall.now += 10**10  # warming up: compiled kernels
    assert engine.pace(PERIOD) <= 100
    assert engine.pace(2 * PERIOD) <= 100


def test_pace_goes_forward_only():
    engine = Wall().engine()
    engine.pace(PERIOD)
    with pytest.raises(Misuse, match="last ended at t = 5000000 ns"):
        engine.pace(PERIOD)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "fast"),
        ("overrun", "drop"),
        ("factor", 0),
        ("factor", float("nan")),
        ("factor", float("inf")),
        ("spin_ns", -1),
    ],
)
def test_bad_pacing_names_the_field_and_the_value(field, value):
    with pytest.raises(Misuse, match=rf"clock\.{field} = {value!r}: must be"):
        Pacing(**{field: value})


def test_the_wall_clock_moves_no_simulated_event():
    def story(wall, **pacing):
        engine, seen = wall.engine(**pacing), []

        def site():
            for k in range(20):
                yield engine.until(k * PERIOD + 300)
                wall.now += (k % 3) * 4_000_000
                seen.append(engine.now)
                yield engine.until((k + 1) * PERIOD)
                engine.pace(int(engine.now))

        engine.process(site())
        engine.run()
        return seen

    free = story(Wall(), mode="free")
    for overrun in ("stretch", "hold", "skip"):
        assert story(Wall(oversleep_ns=10**7), overrun=overrun) == free


# -------------------------------------------------------------------------------------------------------------- ledger


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_percentiles_against_sorting(values, share):
    tally = Tally()
    for v in values:
        tally.add(v)
    exact = sorted(values)[max(1, int(np.ceil(share * len(values) - 1e-9))) - 1]
    assert exact <= tally.at(share) <= exact * (1 + 1 / 64) + 1
    assert tally.at(share) <= tally.max == max(values)
    assert tally.sum == sum(values)


def test_small_percentiles_are_exact_and_an_empty_tally_is_zero():
    tally = Tally()
    assert tally.at(0.5) == 0
    for v in range(1, 101):
        tally.add(v)
    assert [tally.at(q) for q in (0.01, 0.5, 0.95, 0.99, 1.0)] == [1, 50, 95, 99, 100]
    tally.add(-5)
    assert tally.at(0.0) == 0


def test_stages_add_up_within_a_subframe_and_are_apart_between_them():
    wall, cpu = [0], [0]
    ledger = Ledger(lambda: wall[0], lambda: cpu[0])

    def work(name, wall_ns, cpu_ns):
        with ledger.stage(name):
            wall[0] += wall_ns
            cpu[0] += cpu_ns

    for k in range(100):
        work("sensing", 1000 * (k + 1), 500)
        work("sensing", 1000, 0)  # entered twice: one number a subframe
        work("kpi", 10, 10)
        wall[0] += 7  # in no stage, in the subframe all the same
        ledger.turn(90_000)
    report = ledger.report()
    sensing = report["stages"]["sensing"]
    assert sensing["p50_us"] == pytest.approx(51, rel=1 / 64)
    assert sensing["p99_us"] == pytest.approx(100, rel=1 / 64)
    assert sensing["max_us"] == 101
    assert sensing["mean_us"] == pytest.approx(51.5)
    assert sensing["cpu_mean_us"] == 0.5
    assert sensing["share"] == pytest.approx(500 / 90_000)
    assert report["stages"]["kpi"]["max_us"] == pytest.approx(0.01)
    assert report["subframe"]["max_us"] == pytest.approx(101.017)
    assert report["subframes"] == 100
    assert report["misses"] == sum(1000 * (k + 2) + 17 > 90_000 for k in range(100))
    assert ledger.last == {"sensing": 101_000, "kpi": 10}
    assert ledger.slowest() == "sensing"


def test_a_stage_that_raises_is_still_counted():
    wall = Wall()
    ledger = Ledger(wall.clock, lambda: 0)

    def fail():
        with ledger.stage("echo"):
            wall.now += 3_000
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    ledger.turn(1)
    assert 3_000 <= ledger.last["echo"] < 3_200


def test_waiting_is_in_no_subframe():
    wall = Wall(oversleep_ns=0)
    engine = wall.engine()
    play(wall, engine, [1_000_000] * 50)
    report = engine.report()
    assert report["subframe"]["max_us"] == pytest.approx(1_000, rel=0.01)
    assert report["misses"] == 0
    assert report["budget_us"] == 5_000


def test_free_running_reports_the_misses_it_would_have_had():
    wall = Wall()
    engine = wall.engine(mode="free")
    play(wall, engine, LATE)
    assert engine.report()["misses"] == 1
    assert engine.report()["late"] == 0


def test_table_has_a_line_a_stage():
    wall = Wall(oversleep_ns=0)
    engine = wall.engine()
    with engine.ledger.stage("sensing"):
        wall.now += 2_000_000
    engine.pace(PERIOD)
    lines = table(engine.report()).splitlines()
    assert [line.split()[0] for line in lines] == ["stage", "sensing", "subframe", "lag"]
    assert "40.0 %" in lines[1]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("step_s", [-3600.0, -0.02, 3600.0])
@pytest.mark.parametrize("overrun", ["stretch", "skip"])
def test_a_clock_that_steps_is_gone_along_with(step_s, overrun):
    wall = Wall(oversleep_ns=0)
    engine = wall.engine(overrun=overrun)
    engine.start()
    released = []
    for k in range(1, 9):
        wall.now += round(step_s * 1e9) if k == 4 else 0
        engine.pace(k * PERIOD)
        released.append(wall.now - (round(step_s * 1e9) if k >= 4 else 0))
    apart = np.diff(released)
    assert np.all(apart[[0, 1, 4, 5, 6]] > 0.99 * PERIOD)  # paced before, and after
    assert np.all(apart < 1.01 * 2 * PERIOD)  # nowhere has the step been waited for
    assert engine.late == (step_s > 0)


def test_a_clock_that_steps_back_while_it_is_waited_for():
    wall = Wall(oversleep_ns=0)
    engine = wall.engine()
    engine.start()
    engine.pace(PERIOD)
    reads = iter(range(10**6))
    clock = engine._clock
    engine._clock = lambda: clock() - (3_600_000_000_000 if next(reads) > 2 else 0)
    engine.pace(2 * PERIOD)  # would spin for an hour
    assert next(reads) < 10_000
