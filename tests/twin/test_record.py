"""Recordings: what went in comes out, a killed or starved writer leaves no lie, and equal runs have equal hashes."""

import csv
import errno
import itertools
import json
import logging
import os
import signal
import struct
import subprocess
import sys

import hypothesis.extra.numpy as hnp
import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader

from hal import wire
from hal.errors import Misuse, RemoteFault
from hal.record import Array, Complex, Float, Int, record
from twin.export import export
from twin.record import Recorder, RunHash, info, parts, read, recover, rows, told


@record
class Reading:
    number: int  # counts
    level_db: float
    gain: Complex[Array, "user chain"]
    user: Int[Array, " user"]


@record
class Note:
    text: str
    sample: Float[Array, " k"]


def reading(number, users=2):
    noise = np.random.default_rng(number).standard_normal((users, 3))  # so that it does not compress
    return Reading(number=number, level_db=-0.5 * number, gain=noise + 1j * number, user=np.arange(users))


def write_some(path, n=100, users=2, **options):
    with Recorder(path, about={"seed": 7, "scenario": "smoke"}, **options) as recorder:
        for k in range(n):
            recorder.write("bs0.kpi.", reading(k, users), 1000 * k)
            if k % 10 == 0:
                recorder.write("bs0.note.", Note(text=f"n{k}", sample=np.arange(float(k % 3))), 1000 * k)
    return recorder


# ---------------------------------------------------------------------------------------------------------- what goes in


def test_what_was_written_is_read_back_in_order(tmp_path):
    path = tmp_path / "a.mcap"
    write_some(path)
    got = list(read(path, "bs0.kpi."))
    assert [t for _, t, _ in got] == [1000 * k for k in range(100)]
    for k, (topic, _, document) in enumerate(got):
        want = reading(k)
        assert topic == "bs0.kpi."
        assert document["number"] == k
        assert document["level_db"] == want.level_db
        np.testing.assert_array_equal(document["gain"], want.gain)
        assert document["gain"].dtype == np.complex128
    assert len(list(read(path))) == 110
    assert [document["text"] for _, _, document in read(path, "bs0.note.")][:2] == ["n0", "n10"]


def test_typed_replay_is_bit_for_bit(tmp_path):
    path = tmp_path / "a.mcap"
    write_some(path, 20)
    again = [wire.encode(wire.decode(row.data, Reading)) for row in rows(path) if row.record == "Reading"]
    assert again == [wire.encode(reading(k)) for k in range(20)]


def test_a_plain_mcap_reader_and_plain_msgpack_read_it(tmp_path):
    path = tmp_path / "a.mcap"
    now = itertools.count(1_700_000_000_000_000_000, 1000)
    write_some(path, 30, wall=lambda: next(now))
    with open(path, "rb") as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        assert summary.statistics.message_count == 33
        schema, channel, message = next(iter(reader.iter_messages(topics=["bs0.kpi."], starting_at=7000)))
        assert (schema.name, schema.encoding, channel.message_encoding) == ("Reading", "jsonschema", "msgpack")
        assert json.loads(schema.data)["properties"]["number"]["description"] == "counts"
        assert message.log_time == 7000
        assert message.publish_time > 1_700_000_000_000_000_000
        assert message.sequence == 7
        assert msgpack.unpackb(message.data)["gain"][:2] == ["c16", [2, 3]]
        named = {m.name: m.metadata for m in reader.iter_metadata()}
    assert named["about"] == {"seed": "7", "scenario": "smoke", "file": "0"}
    assert named["summary"] == {"reason": "finished"}


def test_an_existing_file_is_never_written_over(tmp_path):
    path = tmp_path / "a.mcap"
    path.write_bytes(b"precious")
    for make in (lambda: Recorder(path), lambda: recover(path.with_name("b.mcap"), path)):
        write = path.with_name("b.mcap")
        if not write.exists():
            write_some(write, 3)
        with pytest.raises(Misuse, match=r"a\.mcap: exists.*written over"):
            make()
    with pytest.raises(Misuse, match="exists"):
        export(path.with_name("b.mcap"), path, "npz")
    assert path.read_bytes() == b"precious"


def test_encoded_bytes_are_taken_as_they_are(tmp_path):
    with Recorder(tmp_path / "a.mcap") as recorder:
        recorder.write("a.", reading(1), 0, wire.encode(reading(2)))
    assert next(read(tmp_path / "a.mcap"))[2]["number"] == 2


# ------------------------------------------------------------------------------------------------------------- flushing


def test_flushed_by_wall_time_and_by_count(tmp_path):
    now = [0]
    path = tmp_path / "a.mcap"
    with Recorder(path, clock=lambda: now[0], flush_messages=50, chunk_bytes=10**9) as recorder:

        def on_disk():
            return len(list(rows(path)))

        logging.getLogger("twin.record").disabled = True  # it says, rightly, that the file is cut
        try:
            for k in range(40):
                recorder.write("a.", reading(k), k)
            assert on_disk() == 0
            now[0] += 250_000_000
            recorder.service()
            assert on_disk() == 40
            recorder.write("a.", reading(40), 40)
            recorder.service()
            assert on_disk() == 40
            now[0] += 250_000_000
            recorder.write("a.", reading(41), 41)
            assert on_disk() == 42
            for k in range(42, 92):
                recorder.write("a.", reading(k), k)
            assert on_disk() == 92
        finally:
            logging.getLogger("twin.record").disabled = False
    assert on_disk() == 92


def test_chunks_are_small(tmp_path):
    path = tmp_path / "a.mcap"
    write_some(path, 500, users=100, flush_messages=10**9, flush_s=1e9)
    with open(path, "rb") as file:
        sizes = [c.uncompressed_size for c in make_reader(file).get_summary().chunk_indexes]
    assert len(sizes) > 20
    assert max(sizes) < 64 * 1024 + 6_000


# --------------------------------------------------------------------------------------------------------- killed writers

WRITER = """
import sys, time
import numpy as np
sys.path.insert(0, {here!r})
from test_record import reading
from twin.record import Recorder
recorder = Recorder({path!r}, flush_s={flush_s})
k = 0
while True:
    recorder.write("bs0.kpi.", reading(k), 1000 * k)
    k += 1
    if k % 10 == 0:
        print(k, time.monotonic_ns(), flush=True)
"""


@pytest.mark.parametrize("lines", [3, 40, 150, 400])
def test_kill_9_loses_no_more_than_the_flush_interval_and_invents_nothing(tmp_path, lines):
    flush_s = 0.02
    path, mended = tmp_path / "a.mcap", tmp_path / "b.mcap"
    code = WRITER.format(here=os.path.dirname(__file__), path=str(path), flush_s=flush_s)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        said = [tuple(map(int, writer.stdout.readline().split())) for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        said += [tuple(map(int, line.split())) for line in writer.stdout if line.endswith("\n")]
    written, killed_ns = said[-1]
    kept = recover(path, mended)
    got = list(rows(mended))
    assert len(got) == kept
    for k, row in enumerate(got):  # none missing in between, none changed
        assert (row.topic, row.t_ns, row.seq) == ("bs0.kpi.", 1000 * k, k)
        assert row.data == wire.encode(reading(k))
    before = [k for k, at in said if at <= killed_ns - flush_s * 1e9]
    assert kept >= (before[-1] if before else 0) - 10
    assert kept <= written + 20
    assert info(mended)["complete"]
    with open(mended, "rb") as file:
        assert make_reader(file).get_summary().statistics.message_count == kept
    if kept:
        assert not info(path)["complete"]
        assert "killed" in info(path)["cut"]
        assert "twin record recover" in told(info(path))


class Whole:
    def __init__(self, path):
        self.path, self.data, self.want = path, path.read_bytes(), [row.data for row in rows(path)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.mcap"
    write_some(path, 300, flush_messages=20)
    return Whole(path)


@given(share=st.floats(0, 1))
def test_cut_anywhere_what_is_read_is_a_prefix(whole, share):
    path, data, want = whole.path, whole.data, whole.want
    cut = path.with_name("cut.mcap")
    size = int(share * len(data))
    cut.write_bytes(data[:size])
    got = [row.data for row in rows(cut)]
    assert got == want[: len(got)]
    assert info(cut)["complete"] == (size == len(data))
    mended = path.with_name("mended.mcap")
    mended.unlink(missing_ok=True)
    assert recover(cut, mended) == len(got)
    assert [row.data for row in rows(mended)] == got
    assert info(mended)["complete"]


@example(share=0.17567088311089862, bit=1)  # an index whose code says that it is a message
@given(share=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_a_flipped_bit_never_makes_a_wrong_record(whole, share, bit):
    path, data, want = whole.path, whole.data, whole.want
    broken = bytearray(data)
    broken[int(share * len(data))] ^= 1 << bit
    bad = path.with_name("bad.mcap")
    bad.write_bytes(broken)
    try:
        got = [row.data for row in rows(bad)]
    except RemoteFault:
        return
    rest = iter(want)
    assert all(one in rest for one in got)  # each as it was, in order; what is damaged is missing


def test_what_is_no_recording_is_named(tmp_path):
    path = tmp_path / "x.mcap"
    path.write_bytes(b"PK\x03\x04 something else entirely")
    with pytest.raises(RemoteFault, match=r"x\.mcap: is not an MCAP recording"):
        list(rows(path))
    with pytest.raises(RemoteFault, match="not an MCAP"):
        recover(path, tmp_path / "y.mcap")
    assert not (tmp_path / "y.mcap").exists()
    with pytest.raises(Misuse, match="there is no such recording"):
        info(tmp_path / "none.mcap")


# ------------------------------------------------------------------------------------------------------------- full disks


class Disk:
    """An unbuffered file on a disk with ``room`` bytes left; a write that does not fit writes what fits, then fails."""

    def __init__(self, path, room, code=errno.ENOSPC, sticks=False):
        self.file, self.room, self.code, self.sticks = open(path, "xb", buffering=0), room, code, sticks
        self.broken = False

    def write(self, data):
        left = self.room - self.file.tell()
        if self.broken or left <= 0:
            self.broken = self.sticks
            raise OSError(self.code, os.strerror(self.code))
        return self.file.write(data[: min(left, 1000)])

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 5, 40, 200, 450, 3_000, 30_000, 30_037, 100_000])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_never_leaves_a_corrupt_file(tmp_path, room, code):
    path = tmp_path / "a.mcap"
    recorder = Recorder(path, flush_messages=5, opener=lambda p: Disk(p, room, code))
    for k in range(3_000):
        recorder.write("a.", reading(k), k)
    recorder.close()
    assert os.strerror(code) in recorder.fault
    assert "Free space" in recorder.fault
    assert recorder.recorded + recorder.unrecorded == 3_000
    if not path.exists():
        assert room < 500
        assert "removed" in recorder.fault
        assert recorder.paths == []
        return
    assert path.stat().st_size <= room
    assert info(path)["complete"]
    got = list(rows(path))
    assert [row.data for row in got] == [wire.encode(reading(k)) for k in range(len(got))]
    assert len(got) >= recorder.recorded - 200  # whole chunks given up to end the file
    with open(path, "rb") as file:  # others' readers take it too
        assert len(list(make_reader(file).iter_messages())) == len(got)
    if room > 10_000:
        assert len(got) > 20


def test_a_disk_that_takes_nothing_any_more_leaves_what_recover_can_mend(tmp_path):
    path = tmp_path / "a.mcap"
    recorder = Recorder(path, flush_messages=5, opener=lambda p: Disk(p, 20_000, errno.EIO, sticks=True))
    for k in range(1_000):
        recorder.write("a.", reading(k), k)
    assert "twin record recover" in recorder.fault
    assert recover(path, tmp_path / "b.mcap") > 20


def test_a_disk_that_fills_at_the_very_end_keeps_every_record(tmp_path):
    path = tmp_path / "a.mcap"
    write_some(path, 50)
    size = path.stat().st_size
    other = tmp_path / "b.mcap"
    recorder = write_some(
        other, 50, opener=lambda p: Disk(p, size - 120)
    )  # times of writing make sizes differ by a few bytes
    assert recorder.fault
    assert recorder.unrecorded == 0
    assert info(other)["complete"]
    assert [row.data for row in rows(other)] == [row.data for row in rows(path)]


def test_stop_raises_once_with_the_whole_sentence(tmp_path):
    recorder = Recorder(tmp_path / "a.mcap", flush_messages=5, when_full="stop", opener=lambda p: Disk(p, 10_000))

    def fill():
        for k in range(1_000):
            recorder.write("a.", reading(k), k)

    with pytest.raises(OSError, match=r"a\.mcap: No space left on device; it was ended properly.*Free space") as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    recorder.write("a.", reading(0), 0)
    recorder.close()
    assert info(tmp_path / "a.mcap")["complete"]


def test_a_real_file_size_limit(tmp_path):
    path = tmp_path / "a.mcap"
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_record import reading
from twin.record import Recorder
recorder = Recorder({str(path)!r}, flush_messages=20)
for k in range(2_000):
    recorder.write("a.", reading(k), k)
recorder.close()
print(recorder.fault)
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True)
    assert "File too large; it was ended properly before what did not fit" in done.stdout
    assert path.stat().st_size <= 50_000
    assert info(path)["complete"]
    assert info(path)["messages"] > 100


# ---------------------------------------------------------------------------------------------------------------- rotation


def test_a_size_limit_starts_the_next_file_and_readers_follow(tmp_path):
    path = tmp_path / "a.mcap"
    recorder = write_some(path, 1_000, users=40, limit_bytes=300_000, flush_messages=20)
    assert recorder.paths == parts(path)
    assert [p.name for p in recorder.paths][:3] == ["a.mcap", "a.0001.mcap", "a.0002.mcap"]
    assert all(p.stat().st_size < 330_000 for p in recorder.paths)
    assert [t for _, t, _ in read(path, "bs0.kpi.")] == [1000 * k for k in range(1_000)]
    about = info(path)
    assert about["messages"] == 1_100
    assert len(about["files"]) == len(recorder.paths)
    for part in recorder.paths:  # each stands alone
        with open(part, "rb") as file:
            reader = make_reader(file)
            assert {schema.name for schema in reader.get_summary().schemas.values()} >= {"Reading"}
            assert any(m.metadata["seed"] == "7" for m in reader.iter_metadata() if m.name == "about")
    assert recover(path, tmp_path / "b.mcap") == 1_100
    assert [row.data for row in rows(tmp_path / "b.mcap")] == [row.data for row in rows(path)]


def test_rotation_never_writes_over_a_file(tmp_path):
    (tmp_path / "a.0001.mcap").write_bytes(b"precious")
    with pytest.raises(Misuse, match=r"a\.0001\.mcap: exists"):
        write_some(tmp_path / "a.mcap", 1_000, users=40, limit_bytes=300_000)
    assert (tmp_path / "a.0001.mcap").read_bytes() == b"precious"


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(Misuse, match="limit_bytes = 1000"):
        Recorder(tmp_path / "a.mcap", limit_bytes=1000)
    with pytest.raises(Misuse, match="when_full = 'panic'"):
        Recorder(tmp_path / "a.mcap", when_full="panic")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------- info and export


def test_info_says_what_is_inside(tmp_path):
    path = tmp_path / "a.mcap"
    write_some(path)
    has = info(path)
    assert has["complete"]
    assert has["messages"] == 110
    assert (has["first_ns"], has["last_ns"]) == (0, 99_000)
    assert has["topics"]["bs0.note."]["messages"] == 10
    assert has["topics"]["bs0.kpi."]["record"] == "Reading"
    assert has["about"]["scenario"] == "smoke"
    assert has["summary"] == {"reason": "finished"}
    assert has["bytes"] == path.stat().st_size
    text = told(has)
    assert "110 messages" in text
    assert "about.seed: 7" in text
    assert "not complete" not in text


def test_export_to_npz(tmp_path):
    path = tmp_path / "a.mcap"
    write_some(path, 30)
    (made,) = export(path, tmp_path / "a.npz", "npz")
    with np.load(made, allow_pickle=False) as data:
        np.testing.assert_array_equal(data["bs0.kpi.t_ns"], 1000 * np.arange(30))
        np.testing.assert_array_equal(data["bs0.kpi.gain"], [reading(k).gain for k in range(30)])
        assert data["bs0.kpi.gain"].dtype == np.complex128
        assert data["bs0.note.text"].tolist() == ["n0", "n10", "n20"]
        assert data["bs0.note.sample.shape"].tolist() == ["(0,)", "(1,)", "(2,)"]
        assert data["bs0.note.sample"].tolist() == [0, 0, 1]


def test_export_to_parquet(tmp_path):
    table = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.mcap"
    write_some(path, 30)
    made = export(path, tmp_path / "out.parquet", "parquet")
    assert {file.suffix for file in made} == {".parquet"}
    for file in made:
        topic = file.name.removeprefix("out.").removesuffix("parquet")
        got = table.read_table(file)
        rows = list(read(path, topic))
        assert got.num_rows == len(rows) > 0
        assert got["t_ns"].to_pylist() == [t_ns for _, t_ns, _ in rows]
        for field in got.schema:
            if field.metadata and b"shape" in field.metadata and field.metadata[b"shape"].startswith(b"("):
                dtype = np.dtype(field.metadata[b"dtype"].decode())
                first = np.array(got[field.name][0].as_py(), dtype=dtype.type(0).real.dtype).view(dtype)
                assert np.array_equal(first, np.asarray(rows[0][2][field.name]).ravel())


def test_export_to_csv(tmp_path):
    path = tmp_path / "a.mcap"
    write_some(path, 30)
    made = export(path, tmp_path / "out.csv", "csv")
    assert sorted(p.name for p in made) == ["out.bs0.kpi.csv", "out.bs0.note.csv"]
    (one,) = export(path, tmp_path / "kpi.csv", "csv", topics=("bs0.kpi.",))
    with open(one, newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["t_ns", "number", "level_db", "user[0]", "user[1]"]
    assert [float(row["level_db"]) for row in table] == [-0.5 * k for k in range(30)]
    with open(tmp_path / "out.bs0.note.csv", newline="") as file:
        ragged = list(csv.DictReader(file))
    assert [row["sample[1]"] for row in ragged] == ["", "", "1.0"]
    with pytest.raises(Misuse, match="format = 'xlsx': must be csv, npz or parquet"):
        export(path, tmp_path / "a.xlsx", "xlsx")


def test_export_keeps_rows_aligned_where_a_record_lacks_a_part(tmp_path):
    @record
    class Inner:
        x: float

    @record
    class Outer:
        inner: Inner | None

    with Recorder(tmp_path / "a.mcap") as recorder:
        for k in range(4):
            recorder.write("a.", Outer(inner=Inner(x=float(k)) if k % 2 else None), k)
    (made,) = export(tmp_path / "a.mcap", tmp_path / "a.csv", "csv")
    with open(made, newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["inner.x"] for row in table] == ["", "1.0", "", "3.0"]


# -------------------------------------------------------------------------------------------------------------- run hash


def hash_of(*entries):
    run = RunHash()
    for topic, t_ns, value in entries:
        run.add(topic, t_ns, value)
    return run.hexdigest()


def test_the_hash_sees_topic_time_content_and_order():
    a, b = reading(1), reading(2)
    base = hash_of(("x.", 1, a), ("x.", 2, b))
    assert base == hash_of(("x.", 1, reading(1)), ("x.", 2, reading(2)))
    others = [
        hash_of(("x.", 1, a)),
        hash_of(("x.", 2, b), ("x.", 1, a)),
        hash_of(("y.", 1, a), ("x.", 2, b)),
        hash_of(("x.", 1, a), ("x.", 3, b)),
        hash_of(("x.", 1, a), ("x.", 2, a)),
        hash_of(("x.", -1, a), ("x.", 2, b)),
    ]
    assert len({base, *others}) == 7
    run = RunHash()
    run.add("x.", 1, wire.encode(a))
    run.add("x.", 2, wire.encode(b))
    assert (run.hexdigest(), run.count) == (base, 2)


def test_the_hash_is_sha256_of_the_stated_bytes():
    import hashlib

    data = wire.encode(reading(3))
    want = hashlib.sha256(b"isac-twin" + struct.pack("<Q", 3) + b"ab." + struct.pack("<qQ", 5, len(data)) + data)
    assert hash_of(("ab.", 5, reading(3))) == want.hexdigest()


@given(hnp.arrays(np.float64, (2,), elements=st.floats(allow_nan=False)), st.integers(0, 1), st.integers(0, 63))
def test_one_bit_changes_the_hash(values, entry, bit):
    other = values.copy()
    other.view(np.uint64)[entry] ^= np.uint64(1 << bit)
    assert hash_of(("a.", 0, Note(text="", sample=values))) != hash_of(("a.", 0, Note(text="", sample=other)))


def test_the_hash_does_not_depend_on_pythonhashseed():
    code = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_record import hash_of, reading
print(hash_of(*((f"t{{k}}.", k, reading(k)) for k in range(20))))
"""
    made = set()
    for seed in ("0", "1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
        made.add(done.stdout.strip())
    assert made == {hash_of(*((f"t{k}.", k, reading(k)) for k in range(20)))}


def test_stream_order_is_file_order(tmp_path):
    """Not sorted by time: a replay needs the order in which things were said."""
    path = tmp_path / "a.mcap"
    with Recorder(path) as recorder:
        for t in (5, 3, 4):
            recorder.write("a.", reading(t), t)
    assert [row.t_ns for row in rows(path)] == [5, 3, 4]
    with open(path, "rb") as file:
        assert sum(type(item).__name__ == "Message" for item in StreamReader(file).records) == 3
