"""Patterns, codebooks and coupling from files: what was written comes out, and what cannot be is refused."""

from __future__ import annotations

import numpy as np
import pytest
from small import CARRIER_HZ, half, machine, nameplate

from hal.array import Upa, direction_from, element_amplitude
from hal.errors import Misuse
from hal.frontend import Beam
from hal.measured import load_codebook, load_coupling, load_pattern, save_codebook
from hal.network import Network, neighbour_coupling, response
from hal.pattern import pattern_amplitude
from hal.wire import decode, encode


def cosine_rows(step_deg=5):
    """An element of power pattern 4 cos^1 in the front: what element_exponent 1 and 6 dBi are."""
    rows = []
    for az in np.arange(-90, 90 + step_deg, step_deg):
        for el in np.arange(-90, 90 + step_deg, step_deg):
            ux = np.cos(np.deg2rad(az)) * np.cos(np.deg2rad(el))
            rows.append((az, el, 10 * np.log10(max(4 * ux, 1e-9))))
    return np.array(rows)


def written(path, header, rows):
    path.write_text("\n".join([header, *(",".join(f"{v:.9g}" for v in row) for row in rows)]))
    return path


def test_a_pattern_of_a_known_law_is_that_law(tmp_path):
    rng = np.random.default_rng(0)
    file = written(tmp_path / "p.csv", "az_deg,el_deg,gain_dbi", rng.permutation(cosine_rows(2)))
    array = Upa(2, 2, element_pattern=file).build(CARRIER_HZ, np.zeros(3), np.eye(3))
    law = Upa(2, 2, element_gain_dbi=10 * np.log10(4.0), element_exponent=1.0).build(CARRIER_HZ, np.zeros(3), np.eye(3))
    u = direction_from(rng.uniform(-1.2, 1.2, 200), rng.uniform(-1.2, 1.2, 200))
    assert element_amplitude(array, u) == pytest.approx(element_amplitude(law, u), abs=4e-3)
    behind = u * np.array([-1.0, 1.0, 1.0])
    assert not element_amplitude(array, behind).any()
    again = decode(encode(array), type(array))
    assert np.array_equal(element_amplitude(again, u), element_amplitude(array, u))


def test_grid_points_are_exact_over_cosines_and_npz_is_csv(tmp_path):
    uy, uz = np.linspace(-0.5, 0.5, 11), np.linspace(-0.4, 0.4, 5)
    gain = np.random.default_rng(1).uniform(-10, 4, (11, 5))
    np.savez(tmp_path / "p.npz", uy=uy, uz=uz, gain_dbi=gain)
    rows = [(a, b, g) for (a, line) in zip(uy, gain, strict=True) for b, g in zip(uz, line, strict=True)]
    for path in (tmp_path / "p.npz", written(tmp_path / "p.csv", "uy,uz,gain_dbi", rows)):
        pattern = load_pattern(path)
        y, z = np.meshgrid(uy, uz, indexing="ij")
        u = np.stack([np.sqrt(1 - y * y - z * z), y, z], axis=-1)
        assert 20 * np.log10(pattern_amplitude(pattern, u)) == pytest.approx(gain, abs=1e-6)
        half_way = (u[3, 2] + u[4, 2]) / 2
        expected = (10 ** (gain[3, 2] / 20) + 10 ** (gain[4, 2] / 20)) / 2
        assert pattern_amplitude(pattern, half_way) == pytest.approx(expected, rel=1e-6)
        outside = np.array([[np.sqrt(1 - 0.36), 0.6, 0.0]])
        assert pattern_amplitude(pattern, outside) == 0.0


def test_torch_differentiates_through_a_pattern(tmp_path):
    torch = pytest.importorskip("torch")
    pattern = load_pattern(written(tmp_path / "p.csv", "az_deg,el_deg,gain_dbi", cosine_rows(10)))
    u = direction_from(np.array([0.31]), np.array([0.22]))
    mine = torch.tensor(u, requires_grad=True)
    out = pattern_amplitude(pattern, mine)
    assert out.detach().numpy() == pytest.approx(pattern_amplitude(pattern, u))
    out.sum().backward()
    step = np.array([[0.0, 1e-6, 0.0]])
    slope = (pattern_amplitude(pattern, u + step) - pattern_amplitude(pattern, u - step)) / 2e-6
    assert mine.grad.numpy()[0, 1] == pytest.approx(slope[0], rel=1e-4)


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("az_deg,gain_dbi", [(0, 0)], "must have uy, uz"),
        ("uy,uz,gain_dbi", [(0, 0, 0), (0.1, 0, 0), (0, 0.1, 0)], "do not fill a grid"),
        ("uy,uz,gain_dbi", [(0, 0, 0), (0.1, 0, 0), (0.3, 0, 0)], "even steps"),
        ("az_deg,el_deg,gain_dbi", [(a, e, 9.0) for a in (-180, 180) for e in (-90, 90)], "times what it is fed"),
        ("uy,uz,gain_dbi", [("x", 0, 0)], "cannot be read as a table"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(tmp_path, header, rows, said):
    path = tmp_path / "p.csv"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    with pytest.raises(Misuse, match=said):
        load_pattern(path)
    with pytest.raises(Misuse, match="cannot be read"):
        load_pattern(tmp_path / "none.csv")


def test_a_codebook_becomes_rows_the_machine_takes(tmp_path):
    spec = nameplate(transmit=half(2, 2, slots=4, delay_lines=(2, 1)))
    rows = [(1, 0, n, 45.0 * n, 0.5, 25.0 * (n // 2)) for n in range(4)] + [(3, 0, 2, -90.0, 1.0, 0.0)]
    beam = load_codebook(
        written(tmp_path / "c.csv", "slot,chain,element,phase_deg,amplitude,delay_ps", rows), "transmit", spec.transmit
    )
    report = machine(spec).set_beam(beam, 0)
    assert beam.slot.tolist() == [1, 3]
    assert report.readback.phase_rad[0, 0] == pytest.approx(np.deg2rad([0, 45, 90, 135]))
    assert report.readback.delay_s[0, 0] == pytest.approx([0, 25e-12])
    assert beam.amplitude[1, 0].tolist() == [0, 0, 1, 0]  # not named: off
    save_codebook(tmp_path / "c.npz", beam)
    back = load_codebook(tmp_path / "c.npz", "transmit", spec.transmit)
    assert all(
        np.array_equal(getattr(back, n), getattr(beam, n)) for n in ("slot", "delay_s", "phase_rad", "amplitude")
    )
    assert isinstance(back, Beam)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(0, 0, 9, 0.0, 0.0)], r"line 2: element = 9; must be 0 .. 3"),
        ([(0, 0, 0, 0.0, 0.0), (7, 0, 0, 0.0, 0.0)], r"line 3: slot = 7"),
        ([(0, 0, 0, 0.0, 0.0), (0, 0, 1, 0.0, 50.0)], "same delay line"),
    ],
)
def test_a_codebook_for_another_machine_is_refused(tmp_path, rows, said):
    spec = nameplate(transmit=half(2, 2, slots=4, delay_lines=(2, 1)))
    with pytest.raises(Misuse, match=said):
        load_codebook(
            written(tmp_path / "c.csv", "slot,chain,element,phase_deg,delay_ps", rows), "transmit", spec.transmit
        )


def test_a_coupling_matrix_from_a_file_is_used_and_checked(tmp_path):
    matrix = neighbour_coupling(3, 2, -12.0)
    text = "\n".join(",".join(f"{v.real:.17g}{v.imag:+.17g}j" for v in row) for row in matrix)
    (tmp_path / "m.csv").write_text(text)
    np.savez(tmp_path / "m.npz", coupling=matrix)
    for name in ("m.csv", "m.npz"):
        assert np.array_equal(load_coupling(tmp_path / name), matrix)
    measured, modelled = Network(coupling=tmp_path / "m.csv").build(3, 2), Network(coupling_db=-12.0).build(3, 2)
    settings = np.zeros((1, 1, 0)), np.ones((1, 1, 6)), np.ones((1, 1, 6))
    assert np.array_equal(
        response(measured, *settings, np.array([1e11])), response(modelled, *settings, np.array([1e11]))
    )
    with pytest.raises(Misuse, match="is of 6 elements, the array has 9"):
        Network(coupling=tmp_path / "m.csv").build(3, 3)
    np.savez(tmp_path / "m.npz", coupling=1.2 * matrix)
    with pytest.raises(Misuse, match=r"gains 1\.58 dB"):
        load_coupling(tmp_path / "m.npz")
    (tmp_path / "m.csv").write_text("1,2\n3")
    with pytest.raises(Misuse, match=r"cannot be read as a matrix|square"):
        load_coupling(tmp_path / "m.csv")
