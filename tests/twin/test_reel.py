"""A recording at any of its moments: the same messages as read from end to end, found at once."""

from __future__ import annotations

import pytest

from hal.errors import Misuse
from hal.record import Array, Float, record
from twin.record import Recorder, parts, rows
from twin.reel import Reel, recording_of


@record
class Sample:
    number: int
    value: Float[Array, " n"]


def sample(number: int, size: int = 40) -> Sample:
    import numpy as np

    return Sample(number=number, value=np.full(size, float(number)))


def recorded(path, subframes=30, **options):
    """Two topics each subframe, one every tenth; chunks so small that there are many."""
    with Recorder(path, about={"title": "7", "seed": 7, "movers": {"1": "a"}}, chunk_bytes=1024, **options) as out:
        for k in range(subframes):
            t_ns = 100 + 5 * k
            out.write("truth.", sample(k), t_ns)
            if k % 10 == 0:
                out.write("bs0.beam.transmit.", sample(1000 + k, 400), t_ns)
            out.write("bs0.kpi.", sample(k), t_ns)
    return Reel(path)


def test_every_message_is_the_one_that_reading_through_gives(tmp_path):
    reel = recorded(tmp_path / "recording.mcap")
    whole = list(rows(reel.path))
    assert len(whole) == len(reel) == 63
    for number in (*range(len(reel)), 40, 3, 62, 0):  # in order, and not
        assert reel.message(number) == whole[number]
    assert [row.t_ns for row in reel.rows("bs0.beam.transmit.")] == [100, 150, 200]
    assert reel.about["title"] == "7"
    assert reel.about["seed"] == 7
    assert reel.about["movers"] == {"1": "a"}


def test_a_recording_in_several_files_is_one(tmp_path):
    reel = recorded(tmp_path / "recording.mcap", 120, limit_bytes=12_000)
    assert len(parts(reel.path)) > 2
    assert [reel.message(n) for n in range(len(reel))] == list(rows(reel.path))


def test_frames_are_instants_and_before_is_what_a_listener_would_know(tmp_path):
    reel = recorded(tmp_path / "recording.mcap")
    assert len(reel.frames) - 1 == 30
    assert reel.frame(100) == 0
    assert reel.frame(101) == 1
    assert reel.frame(10_000) == 30
    known = [reel.message(number) for number in reel.before(15)]
    assert {(row.topic, row.t_ns) for row in known} == {("truth.", 170), ("bs0.kpi.", 170), ("bs0.beam.transmit.", 150)}
    assert reel.before(0) == []


def test_a_cut_recording_ends_where_it_was_cut(tmp_path, caplog):
    path = recorded(tmp_path / "recording.mcap").path
    whole = list(rows(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    reel = Reel(path)
    assert 0 < len(reel) < len(whole)
    assert [reel.message(n) for n in range(len(reel))] == whole[: len(reel)]
    assert "read up to there" in caplog.text


def test_what_is_no_recording_is_named(tmp_path):
    with pytest.raises(Misuse, match=r"nowhere: is neither a run directory nor a recording"):
        recording_of(tmp_path / "nowhere")
    with pytest.raises(Misuse, match=r"holds no recording\.mcap"):
        recording_of(tmp_path)
    Recorder(tmp_path / "recording.mcap").close()
    with pytest.raises(Misuse, match="holds no messages"):
        Reel(tmp_path)
