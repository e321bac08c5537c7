"""The report says what the run directory holds: no figure without its data, no failure where files are missing or cut."""

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import direction_from
from hal.errors import Misuse
from twin import figures, patterns
from twin.build import run as play
from twin.drawing import look, picture
from twin.dwell import dwell_map, power_map, recorded_map
from twin.history import Course, history
from twin.kpi import Scorer
from twin.map import magnification, map_of, principal
from twin.record import read
from twin.report import drawn, read_scenario, report
from twin.scenario import frontend_spec, load, numerology
from twin.story import Story

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
NAMES = ["map", "rate", "sensing", "beam", "dwell", "plan", "time", "events"]
LIGHT_MPS = 299_792_458.0


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A run that keeps everything, and the last echo observation and belief as the loop had them."""
    kept = SimpleNamespace(folder=tmp_path_factory.mktemp("report") / "run")
    scored = Scorer.score

    def score(self, k, truth, dwells, echo, belief, *rest):
        kept.echo, kept.belief, kept.truth = echo, belief, truth
        return scored(self, k, truth, dwells, echo, belief, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "score", score)
        kept.run = play(SMOKE, {"record.echoes": True, "record.beams_ms": 0}, out=kept.folder)
    kept.page = report(kept.folder).read_text(encoding="utf-8")
    return kept


@pytest.fixture
def copy(smoke, tmp_path):
    """A copy of the run that a test may damage."""
    shutil.copytree(smoke.folder, tmp_path / "run")
    return tmp_path / "run"


def tree(page):
    """The page as XML, which it is."""
    return ElementTree.fromstring(page.partition("\n")[2])


def table(folder):
    """kpi.csv, column by column, read without any of the report's code."""
    with (folder / "kpi.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def sheets(folder):
    out = history(folder)
    return out, {sheet.name: sheet for sheet in drawn(out, *read_scenario(out))}


# ------------------------------------------------------------------------------------------------------------- the page


def test_the_page_has_every_figure_with_a_caption_and_reads_as_xml(smoke):
    root = tree(smoke.page)
    sections = root.findall(".//section")
    assert [s.get("id") for s in sections] == NAMES
    for section in sections:
        figure = section.find("figure")
        assert figure is not None, section.get("id")
        assert any(child.tag.endswith(("svg", "img")) for child in figure.find("div"))
        assert "Look for" in figure.find("figcaption").text
    assert root.find(".//title").text == "smoke: report of a run"
    assert not root.findall(".//*[@class='missing']")
    told = [p.text for p in root.findall(".//*[@class='notice']/p")]
    assert told == [f"Warning: {text}." for text in smoke.run.summary["warnings"]]


def test_nothing_is_fetched_and_nothing_runs(smoke):
    assert not re.search(r"<(script|link|iframe|object|embed)\b|@import|\bon[a-z]+=", smoke.page)
    for element in tree(smoke.page).iter():
        for name, value in element.attrib.items():
            if name.rpartition("}")[2] in ("href", "src"):
                assert value.startswith(("#", "data:image/png;base64,")), value
            assert "http" not in value
    assert not re.search(r"url\((?!#)", smoke.page)


def test_ids_are_unique_and_links_lead_somewhere(smoke):
    ids = [element.get("id") for element in tree(smoke.page).iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    aims = set(re.findall(r'href="#([^"]*)"', smoke.page)) | set(re.findall(r"url\(#([^)]*)\)", smoke.page))
    assert aims <= set(ids)
    assert aims >= set(NAMES)


def test_the_page_is_small_repeatable_and_fit_for_paper_and_dark_rooms(smoke):
    assert len(smoke.page) < 2e6
    assert report(smoke.folder).read_text(encoding="utf-8") == smoke.page
    assert "@media print" in smoke.page
    assert "prefers-color-scheme: dark" in smoke.page
    assert not re.search(r"/(home|work|tmp|root)/", smoke.page)


def test_headline_numbers_are_the_summary_s(smoke):
    cells = {row[0].text: row[1].text for row in tree(smoke.page).findall(".//tr") if len(row) > 1}
    told = smoke.run.summary
    assert cells["sum rate"] == f"{told['rate_gbps']:.2f} Gbit/s"
    assert cells["movers followed"] == f"{100 * told['tracks']['alive_share']:.1f} %"
    assert cells["range: error over bound"] == f"{told['sensing']['rmse_over_bound']['range_m']:.2f}"
    assert told["run"]["hash"] in smoke.page


def test_the_paragraph_states_the_scenario_s_own_figures(smoke):
    text = next(p.text for p in tree(smoke.page).iter("p") if p.text.startswith("Site bs0"))
    for said in (
        "works at 100 GHz",
        "8 GHz in 8 subcarriers",
        "64 MHz in 1 dwell of 8 frames",
        "sends 30 dBm from 64 elements",
        "4 x 4 delay",
    ):
        assert said in text
    assert "serves 2 users; 1 other mover carry" in text or "serves 2 users; 1 other mover" in text
    assert "the run has 20 of them, 0.1 s" in text


def test_titles_and_names_cannot_break_the_page(copy):
    text = (copy / "scenario.yaml").read_text(encoding="utf-8")
    (copy / "scenario.yaml").write_text(
        text.replace("title: smoke", 'title: "a < b & <script>x</script>"'), encoding="utf-8"
    )
    page = report(copy).read_text(encoding="utf-8")
    assert tree(page).find(".//h1").text.startswith("a < b & <script>")
    assert "<script" not in page


# ----------------------------------------------------------------------------------------------- figures are their data


def test_rates_drawn_are_those_of_the_table(smoke):
    truth = table(smoke.folder)
    out, drawn_ = sheets(smoke.folder)
    axes = drawn_["rate"].drawing.axes
    for column, user in enumerate(smoke.run.user):
        believed, delivered = (line.get_ydata() for line in axes[column].lines)
        assert axes[column].get_title(loc="left") == user
        np.testing.assert_allclose(delivered, truth[f"rate_bps.{user}"] * 1e-9)
        np.testing.assert_allclose(believed, truth[f"predicted_bps.{user}"] * 1e-9)
    np.testing.assert_allclose(
        axes[-1].lines[1].get_ydata(), sum(truth[f"rate_bps.{u}"] for u in smoke.run.user) * 1e-9
    )
    np.testing.assert_allclose(out.rate.k, np.arange(20) + 0.5)


def test_errors_drawn_are_root_mean_squares_of_the_table(smoke):
    truth = table(smoke.folder)
    out, drawn_ = sheets(smoke.folder)
    axes = drawn_["sensing"].drawing.axes  # rows angle, range, speed; columns all, one
    width = out.miss.coarser(8).width
    for row, keys, unit in ((0, ("uy", "uz"), 180e3 / np.pi), (1, ("range_m",), 1e3), (2, ("velocity_mps",), 1e3)):
        for line, of in ((axes[2 * row].lines[1], "error"), (axes[2 * row].lines[0], "bound")):
            seen = np.stack([np.isfinite(truth[f"error.{keys[0]}.{m}"]) for m in smoke.run.entity])
            square = np.stack([sum(truth[f"{of}.{key}.{m}"] ** 2 for key in keys) for m in smoke.run.entity])
            expected = [
                unit * np.sqrt(square[:, k : k + width][seen[:, k : k + width]].mean())
                if seen[:, k : k + width].any()
                else np.nan
                for k in range(0, 20, width)
            ]
            np.testing.assert_allclose(line.get_ydata(), expected)


def test_the_map_has_the_true_paths_and_the_tracks_ellipses(smoke):
    recording = smoke.folder / "recording.mcap"
    paths = np.array([document["position_m"] for _, _, document in read(recording, "truth.")])  # nobody comes or goes
    entity = next(document["entity"] for _, _, document in read(recording, "truth."))
    out = history(smoke.folder)
    axes = map_of(out, load(smoke.folder / "scenario.yaml")).drawing.axes[0]
    lines = [line.get_xydata() for line in axes.lines]
    for column, name in enumerate(entity.tolist()):
        assert name in out.order
        assert any(len(line) == 20 and np.allclose(line, paths[:, column, :2]) for line in lines)
    last = [document["tracks"] for _, _, document in read(recording, "bs0.belief.")][-1]
    confirmed = last["state"][last["confirmed"], :2]
    assert all(any(np.isclose(line, spot).all(axis=1).any() for line in lines if len(line)) for spot in confirmed)
    assert "sector searched" in axes.get_legend_handles_labels()[1]
    size_x, size_y = (
        np.ptp(limits) / length
        for limits, length in zip((axes.get_xlim(), axes.get_ylim()), axes.bbox.size, strict=True)
    )
    assert size_x == pytest.approx(size_y)  # one scale for both directions


def test_principal_axes_of_an_ellipse():
    turn = np.deg2rad(30)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    sigma, angle = principal(rotation @ np.diag([9.0, 1.0]) @ rotation.T)
    np.testing.assert_allclose(sigma, [3, 1])
    assert angle % 180 == pytest.approx(30)


def test_the_plan_drawn_is_the_plan_recorded(smoke):
    out, drawn_ = sheets(smoke.folder)
    image = drawn_["plan"].drawing.axes[0].images[0].get_array()
    for _, _, plan in read(smoke.folder / "recording.mcap", "bs0.plan."):
        column = image[:, plan["k"]]
        for block in range(35):
            if block < plan["sensing_blocks"]:
                expected = 1
            elif plan["slot"][block] >= 0 and plan["served"][block].any():
                expected = 2 + out.user.index(int(plan["user"][plan["served"][block]][0]))
            else:
                expected = 0
            assert column[block] == expected
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in drawn_["plan"].drawing.axes[1].collections]
    assert tops[-1] == pytest.approx(100)


def test_timings_drawn_are_those_of_the_summary(smoke):
    axes = sheets(smoke.folder)[1]["time"].drawing.axes[0]
    names = [label.get_text().removeprefix("– ") for label in axes.get_yticklabels()]
    stages = {**smoke.run.summary["clock"]["stages"], "subframe": smoke.run.summary["clock"]["subframe"]}
    assert sorted(names) == sorted(stages)
    for line, key in zip(axes.lines, ("cpu_p50_us", "p50_us", "p99_us"), strict=False):
        np.testing.assert_allclose(line.get_xdata(), [stages[name][key] * 1e-3 for name in names])
    assert axes.lines[3].get_xdata()[0] == 5.0


def test_another_seed_draws_other_figures(smoke, tmp_path):
    other = play(SMOKE, {"seed": 5, "record.echoes": True, "record.beams_ms": 0}, out=tmp_path / "other")
    before, after = sheets(smoke.folder)[1], sheets(other.path)[1]
    for name in ("map", "rate", "sensing", "dwell"):
        assert picture(before[name]) != picture(after[name]), name


# ----------------------------------------------------------------------------------------------------------------- beams


def dense_gain_db(half, setting, direction, frequency_hz, row=0, chain=0):
    """Element by element, as docs/conventions.md writes it."""
    total = 0.0
    for n, position in enumerate(half.array.position_m):
        line = half.network.line[n]
        feed = setting.amplitude[row, chain, n] * np.exp(1j * setting.phase_rad[row, chain, n])
        feed = (
            feed
            * np.exp(-2j * np.pi * frequency_hz * setting.delay_s[row, chain, line])
            / np.sqrt(len(half.array.position_m))
        )
        total = total + feed * np.exp(2j * np.pi * frequency_hz * (position @ direction) / LIGHT_MPS)
    return 20 * np.log10(abs(total))


def test_beam_gain_against_a_sum_over_elements_and_the_figure_shows_it(smoke):
    scenario = load(smoke.folder / "scenario.yaml")
    spec, frame = frontend_spec(scenario, "bs0"), numerology(scenario)
    out = history(smoke.folder)
    seen = out.beam
    direction = direction_from(np.deg2rad([-20.0, 11.0, 37.0]), np.deg2rad([-10.0, -10.0, -5.0]))
    found = patterns.gain_db(spec, seen.readback, direction, frame.subcarrier_hz)
    for a in range(3):
        for m in (0, 7):
            assert found[a, m] == pytest.approx(
                dense_gain_db(spec.transmit, seen.readback, direction[a], frame.subcarrier_hz[m]), abs=1e-6
            )
    sheet = patterns.beam(out, spec, frame)
    assert sheet.drawing.axes[0].get_title(loc="left") == "commanded"
    realised = sheet.drawing.axes[1].images[0]
    azimuth = np.linspace(*realised.get_extent()[:2], realised.get_array().shape[1])
    elevation = np.arcsin(seen.direction[2])
    expected = patterns.gain_db(
        spec, seen.readback, direction_from(np.deg2rad(azimuth), elevation), frame.subcarrier_hz
    )
    np.testing.assert_allclose(realised.get_array(), expected.T, atol=1e-6)
    towards = patterns.gain_db(spec, seen.readback, seen.direction[None], frame.subcarrier_hz)[0]
    assert np.all(towards > 10 * np.log10(64) - 1.0)  # the row points where the belief says


def test_phases_alone_are_the_same_beam_at_the_carrier_and_squint_beside_it(smoke):
    scenario = load(smoke.folder / "scenario.yaml")
    spec = frontend_spec(scenario, "bs0")
    at = direction_from(np.deg2rad([50.0]), np.deg2rad([0.0]))
    lines = spec.transmit.network.lines
    centre = np.array(
        [spec.transmit.array.position_m[spec.transmit.network.line == i].mean(axis=0) for i in range(lines)]
    )
    delay = centre @ at[0] / LIGHT_MPS
    rest = spec.transmit.array.position_m - centre[spec.transmit.network.line]
    setting = SimpleNamespace(delay_s=(delay - delay.min())[None, None], amplitude=np.ones((1, 1, 64)))
    setting.phase_rad = (-2 * np.pi * spec.carrier_hz * (rest @ at[0]) / LIGHT_MPS)[None, None]
    from hal.frontend import Beam

    beam = Beam(
        half="transmit",
        slot=np.array([0]),
        delay_s=setting.delay_s,
        phase_rad=setting.phase_rad,
        amplitude=setting.amplitude,
    )
    alone = patterns.without_lines(spec, beam)
    frequency = np.array([92e9, 100e9, 108e9])
    with_lines, without = (patterns.gain_db(spec, b, at, frequency)[0] for b in (beam, alone))
    assert with_lines[1] == pytest.approx(without[1], abs=1e-9)
    assert not alone.delay_s.any()
    assert np.all(with_lines[[0, 2]] > without[[0, 2]] + 0.5)


# ----------------------------------------------------------------------------------------------------------------- dwell


def frame_of(**changes):
    fields = {"sample_rate_hz": 1e6, "frame_ns": 70_000, "prefix_ns": 6_000, "doppler_bins": 4, "carrier_hz": 1e10}
    return SimpleNamespace(**{**fields, **changes})


def test_the_map_of_noise_alone_is_one_on_average_and_of_an_echo_what_the_matched_filter_gives():
    rng = np.random.default_rng(0)
    frames, chains, size, frame = 8, 3, 64, frame_of()
    sent = np.exp(0.5j * np.pi * rng.integers(0, 4, (frames, size)))
    noise = np.sqrt(0.5 * 1e-3) * (rng.standard_normal((frames, chains, size, 2)) @ [1, 1j])
    t_ns = 70_000 * np.arange(frames)
    quiet = power_map(sent, noise, t_ns, 1e-3, frame)
    inner = 10 ** (quiet["power_db"][:, 2:] / 10)
    assert inner.mean() == pytest.approx(1.0, rel=0.15)
    doppler, delay = 5 / (8 * 70e-6), 3  # Doppler on the grid (a fifth of a cell is not): five cells of the dwell
    doppler = 2 / (8 * 70e-6)
    t_s = t_ns[:, None] * 1e-9 + np.arange(size) / 1e6
    weight = np.array([1.0, 1j, -0.5])
    echo = np.roll(sent, delay, axis=1) * np.exp(2j * np.pi * doppler * t_s)
    found = power_map(sent, echo[:, None, :] * weight[:, None], t_ns, 1e-3, frame)
    row, column = np.unravel_index(found["power_db"].argmax(), found["power_db"].shape)
    assert found["range_m"][column] == pytest.approx(delay * 1e-6 * LIGHT_MPS / 2)
    assert found["velocity_mps"][row] == pytest.approx(doppler * LIGHT_MPS / 2e10)
    leak = np.einsum("fq,fq->", sent.conj(), echo) / sent.size  # what the subtraction takes along
    expected = np.sum(np.abs(weight) ** 2) * sent.size * (1 - abs(leak) ** 2) / (chains * 1e-3)
    assert found["power_db"][row, column] == pytest.approx(10 * np.log10(expected), abs=0.1)


def test_the_map_against_a_direct_sum_and_free_of_leakage():
    rng = np.random.default_rng(1)
    frame = frame_of(prefix_ns=4_000)
    sent = np.exp(0.5j * np.pi * rng.integers(0, 4, (4, 16)))
    heard = rng.standard_normal((4, 2, 16)) + 1j * rng.standard_normal((4, 2, 16))
    t_ns = 70_000 * np.arange(4)
    found = power_map(sent, heard, t_ns, 2.0, frame)
    leaky = power_map(sent, heard + 1e3 * np.array([1, 1j])[:, None] * sent[:, None], t_ns, 2.0, frame)
    np.testing.assert_allclose(leaky["power_db"], found["power_db"], atol=1e-6)
    clean = heard.copy()
    for c in range(2):
        clean[:, c] -= np.vdot(sent, heard[:, c]) / np.vdot(sent, sent) * sent
    for row in (0, 3, 9):
        nu = found["velocity_mps"][row] * 2e10 / LIGHT_MPS
        for lag in (0, 2, 4):
            power = 0.0
            for c in range(2):
                at = sum(
                    clean[f, c, q]
                    * np.exp(-2j * np.pi * nu * (t_ns[f] * 1e-9 + q * 1e-6))
                    * np.conj(sent[f, (q - lag) % 16])
                    for f in range(4)
                    for q in range(16)
                )
                power += abs(at) ** 2 / (2 * 2.0 * np.vdot(sent, sent).real)
            assert 10 ** (found["power_db"][row, 2 * lag] / 10) == pytest.approx(power, rel=1e-9, abs=1e-6)


def test_a_recorded_dwell_is_the_dwell_as_it_was(smoke):
    live = dwell_map(smoke.echo, 0, smoke.belief.detections)
    out = history(smoke.folder)
    recorded = recorded_map(load(smoke.folder / "scenario.yaml"), *out.echo)
    np.testing.assert_allclose(recorded["power_db"], live["power_db"], atol=1e-6)
    np.testing.assert_array_equal(recorded["detected"], live["detected"])
    away = smoke.truth.position_m - [0, 0, 10]
    np.testing.assert_allclose(recorded["truth"][:, 2], np.linalg.norm(away, axis=1))
    strongest = recorded["range_m"][live["power_db"].max(axis=0).argmax()]
    assert min(abs(strongest - recorded["truth"][:, 2])) < 2.4  # a mover is where the map is brightest, to a cell


def test_a_dwell_that_is_not_there_and_one_without_samples(smoke):
    with pytest.raises(Misuse, match=r"dwell = 1: must be 0 \.\. 0"):
        dwell_map(smoke.echo, 1)
    with pytest.raises(Misuse, match=r"sensing\.fidelity = echo"):
        dwell_map(SimpleNamespace(echo=None, drive=None, numerology=smoke.echo.numerology), 0)


def test_dwell_npz_is_shown_first_and_a_broken_one_is_told(copy, smoke):
    arrays = dwell_map(smoke.echo, 0, smoke.belief.detections, np.array([[0.1, 0.2, 40.0, 3.0]]), np.array([7]))
    arrays["power_db"] = np.full_like(arrays["power_db"], 17.0)
    np.savez_compressed(copy / "dwell.npz", **arrays)
    sheet = sheets(copy)[1]["dwell"]
    assert np.all(sheet.drawing.axes[0].images[0].get_array() == 17.0)
    assert "dwell.npz" in sheet.caption
    assert any(
        np.allclose(line.get_xydata(), [[40.0, 3.0]])
        for line in sheet.drawing.axes[0].lines
        if len(line.get_xdata()) == 1
    )
    (copy / "dwell.npz").write_bytes(b"PK\x03\x04 not quite")
    assert "dwell.npz cannot be read" in report(copy).read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------- what can be missing


def notices(page):
    return " ".join("".join(p.itertext()) for p in tree(page).findall(".//*[@class='notice']/p"))


def test_a_killed_run_has_a_report_with_the_numbers_it_could_not_write(copy, smoke):
    (copy / "summary.json").unlink()
    out = history(copy)
    assert out.summary["users"] == smoke.run.summary["users"]
    assert out.summary["sensing"] == smoke.run.summary["sensing"]
    page = report(copy).read_text(encoding="utf-8")
    assert "summary.json is missing" in notices(page)
    assert "Timings are kept in summary.json" in page


def test_a_cut_recording_gives_figures_up_to_the_cut_and_says_so(copy):
    file = copy / "recording.mcap"
    chunks = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(chunks * 2 // 3)
    (copy / "summary.json").write_text('{"users": {', encoding="utf-8")
    page = report(copy).read_text(encoding="utf-8")
    assert "The recording is not complete" in notices(page)
    assert "summary.json is cut off" in notices(page)
    assert re.search(r"of the 20 planned \(0\.1 s\), \d+ were recorded", page)
    out = history(copy)
    assert 0 < out.subframes < 20
    assert len(out.rate.mean) == out.subframes


@pytest.mark.parametrize("content", [None, b"", b"not a recording at all"])
def test_without_a_recording_every_figure_says_what_it_lacks(copy, content):
    (copy / "recording.mcap").unlink()
    (copy / "dwell.npz").unlink()  # a map of its own, which needs no recording
    if content is not None:
        (copy / "recording.mcap").write_bytes(content)
    page = report(copy).read_text(encoding="utf-8")
    assert "ecording" in notices(page)
    missing = {s.get("id") for s in tree(page).findall(".//section") if s.find("*[@class='missing']") is not None}
    assert missing == set(NAMES) - {"time"}
    assert "Headline numbers" in page


def test_a_missing_topic_is_named(tmp_path):
    done = play(SMOKE, {"duration_s": 0.03, "sensing.fidelity": "bound"}, out=tmp_path / "short")
    page = report(done.path).read_text(encoding="utf-8")
    texts = {s.get("id"): "".join(s.itertext()) for s in tree(page).findall(".//section")}
    assert "record.echoes=true" in texts["dwell"]
    assert "beam" not in texts or "record.beams_ms" in texts["beam"] or "The row that serves" in texts["beam"]


def test_an_interrupted_run_says_so(copy, smoke):
    told = json.loads((copy / "summary.json").read_text(encoding="utf-8"))
    told["run"]["interrupted"] = True
    (copy / "summary.json").write_text(json.dumps(told), encoding="utf-8")
    assert "The run was interrupted" in notices(report(copy).read_text(encoding="utf-8"))


def test_a_scenario_no_longer_understood_costs_only_what_needs_it(copy):
    text = (copy / "scenario.yaml").read_text(encoding="utf-8")
    (copy / "scenario.yaml").write_text(text.replace("kind: upa", "kind: spiral"), encoding="utf-8")
    page = report(copy).read_text(encoding="utf-8")
    assert "not understood any more" in notices(page)
    assert tree(page).find(".//section[@id='rate']/figure") is not None
    assert tree(page).find(".//section[@id='beam']/figure") is None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "is not a directory"),
        (lambda folder: (folder / "scenario.yaml").unlink(), "is not a run directory, it has no scenario.yaml"),
        (lambda folder: (folder / "scenario.yaml").write_text("a: [1,"), "is not readable YAML"),
        (lambda folder: (folder / "scenario.yaml").write_text(""), "is empty or not a scenario"),
    ],
)
def test_what_is_no_run_directory_is_refused_in_a_sentence(copy, spoil, said):
    spoil(copy)
    with pytest.raises(Misuse, match=said):
        report(copy)


# -------------------------------------------------------------------------------------------------------- bounded memory


@settings(max_examples=60)
@given(st.lists(st.floats(-1e3, 1e3) | st.just(np.nan), min_size=1, max_size=300), st.integers(2, 16))
def test_a_course_keeps_means_counts_and_time_however_long_it_gets(values, limit):
    course = Course(1, limit)
    for k, value in enumerate(values):
        course.add(k, np.array([value]))
    assert len(course.mean) <= limit + limit % 2
    array = np.array(values)
    assert course.count.sum() == np.isfinite(array).sum()
    for i, (middle, mean) in enumerate(zip(course.k, course.mean[:, 0], strict=True)):
        mine = array[i * course.width : (i + 1) * course.width]
        assert middle == (i + 0.5) * course.width
        np.testing.assert_allclose(
            mean, mine[np.isfinite(mine)].mean() if np.isfinite(mine).any() else np.nan, atol=1e-9
        )
    assert (course.k[-1] - 0.5 * course.width) < len(values) <= course.k[-1] + 0.5 * course.width


def test_magnification_shows_the_middling_ellipse_and_never_shrinks():
    def seen(sigma):
        sight = SimpleNamespace(covariance_m2=np.eye(3)[None] * sigma**2, mover=np.array([0]))
        return SimpleNamespace(sightings=[sight])

    assert magnification(seen(10.0), 100.0) == 1
    assert magnification(seen(0.01), 100.0) == 50
    assert magnification(seen(1e-6), 100.0) == 100


def test_no_two_curves_look_alike():
    looks = [tuple(map(str, look(i).values())) for i in range(28)]
    assert len(set(looks)) == 28
    for i in range(21):  # in black and white, markers tell neighbours apart
        assert look(i)["marker"] != look(i + 7)["marker"] or look(i)["color"] != look(i + 7)["color"]


# ---------------------------------------------------------------------------------------------------------------- events


def subframe(story, k, *, tracks=(), tracked=(), born=0, outage=0, there=(1, 2), clipped=0):
    """One subframe of a story: ``tracks`` as (identity, user, confirmed), ``tracked`` the track that follows each of movers 1, 2."""
    story.now.turn(k * 5_000_000)
    story.now.truth = SimpleNamespace(entity=np.array(there))
    ids, users, sure = (
        (np.array(c) for c in zip(*tracks, strict=True))
        if tracks
        else (np.zeros(0, int), np.zeros(0, int), np.zeros(0, bool))
    )
    story.now.belief = SimpleNamespace(
        tracks=SimpleNamespace(track=ids, user=users, confirmed=sure.astype(bool), born=born)
    )
    follows = np.array([*tracked, -1, -1])[:2]
    story.now.kpi = SimpleNamespace(
        k=k,
        entity=np.array([1, 2]),
        tracked=follows,
        user=np.array([1]),
        outage_blocks=np.array([outage]),
        beams_clipped=clipped,
        missed=0,
        doppler_block=0.0,
    )
    story.tell(lambda entity: f"m{entity}")


def test_tracks_bindings_and_movers_that_come_and_go_are_told_once_each():
    story = Story()
    subframe(story, 0)
    subframe(story, 1, tracks=[(5, -1, True), (6, -1, False)], tracked=(5,), born=7)
    subframe(story, 2, tracks=[(5, 1, True), (6, -1, True)], tracked=(5,), born=7)
    subframe(story, 3, tracks=[(5, -1, True), (6, 1, True)], tracked=(5,), born=7, there=(1,))
    subframe(story, 5, tracks=[(6, -1, True)], born=7)
    story.end()
    assert [(e.t_ns // 5_000_000, e.kind, e.what) for e in story.events] == [
        (1, "track confirmed", "track 5 follows m1"),
        (2, "false track confirmed", "track 6: no mover within 4 m"),
        (2, "user bound", "m1 to track 5"),
        (3, "mover leaves", "m2"),
        (3, "binding swapped", "m1 from track 5 to 6"),
        (5, "subframes missing", "1 between 3 and 5: skipped when late, or not recorded"),
        (5, "mover appears", "m2"),
        (5, "track lost", "track 5, which followed m1"),
        (5, "user unbound", "m1 from track 6"),
    ]
    assert story.counts["track begun (tentative)"] == 7


def test_outage_is_a_spell_that_ends_after_a_tenth_of_a_second_without():
    story = Story()
    for k in range(100):
        subframe(story, k, outage=3 if k in (10, 12, 15, 60) else 0, clipped=2 if k == 99 else 0)
    story.end()
    assert [(e.kind, e.t_ns // 5_000_000, e.until_ns // 5_000_000, e.what) for e in story.events] == [
        ("outage", 10, 15, "m1: 9 blocks"),
        ("outage", 60, 60, "m1: 3 blocks"),
        ("beams clipped", 99, 99, "settings out of range: 2 settings"),
    ]
    assert story.counts["outage"] == 2


def test_events_are_drawn_where_they_happened(smoke):
    out = history(smoke.folder)
    assert out.story.counts["track confirmed"] >= 1
    axes = figures.events(out).drawing.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    row = next(i for i, text in enumerate(labels) if text.startswith("track confirmed"))
    at = next(line.get_xdata() for line in axes.lines if len(line.get_ydata()) and line.get_ydata()[0] == row)
    np.testing.assert_allclose(at, [e.t_ns * 1e-9 for e in out.events if e.kind == "track confirmed"])


def test_the_command_says_where_the_page_is_and_matplotlib_waits_until_it_is_needed(copy, capsys):
    import argparse
    import subprocess
    import sys

    from twin.report import arguments, run

    parser = argparse.ArgumentParser()
    arguments(parser)
    (copy / "recording.mcap").unlink()
    assert run(parser.parse_args([str(copy)])) == 0
    assert Path(capsys.readouterr().out.strip()) == copy / "report.html"
    asked = "import sys, twin.report, twin.diff; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
