from pathlib import Path

import numpy as np
import pytest

from hal.errors import Misuse
from twin.physics.absorption import EDITION, specific_attenuation_db_per_km, vapour_pressure_pa

DATA = Path(__file__).parent / "data"

# ITU-R, validation examples CG-3M3J-13-ValEx, sheet "SpAtt" of P.676: GHz, oxygen and dry air dB/km, water vapour dB/km
# at p = 1013.25 hPa (dry), 288.15 K, 7.5 g/m3.
VALIDATION = [
    (12.0, 0.00869826406877357, 0.00953538822024593),
    (20.0, 0.0118835504778076, 0.0970473048151117),
    (60.0, 14.6234747964861, 0.154841840636247),
    (90.0, 0.0388697110724235, 0.341973394422181),
    (130.0, 0.0415090835995228, 0.75184470),
]


def test_the_recommendations_own_validation_examples():
    assert EDITION.startswith("ITU-R P.676-12")
    f, oxygen, vapour = np.array(VALIDATION).T
    # vapour at 130 GHz is quoted to eight places only
    np.testing.assert_allclose(
        specific_attenuation_db_per_km(f * 1e9, 101325.0, 288.15, 7.5), oxygen + vapour, rtol=2e-8
    )


def test_frozen_values_of_an_independent_program():
    f, p, t, rho, expected = np.loadtxt(DATA / "gas_attenuation.csv", delimiter=",", skiprows=1, unpack=True)
    assert f.size > 600
    got = specific_attenuation_db_per_km(f, p, t, rho)
    np.testing.assert_allclose(got, expected, rtol=1e-8)


@pytest.mark.parametrize(("ghz", "db_per_km"), [(100, 0.458), (140, 0.923), (220, 2.487), (300, 5.247)])
def test_sub_terahertz_at_sea_level(ghz, db_per_km):
    assert specific_attenuation_db_per_km(ghz * 1e9) == pytest.approx(db_per_km, abs=6e-4)


def test_broadcasting_equals_one_at_a_time():
    f = np.linspace(96e9, 104e9, 5)[:, None, None]
    p, rho = np.array([101325.0, 9e4, 7e4])[:, None], np.array([0.0, 7.5])
    got = specific_attenuation_db_per_km(f, p, 288.15, rho)
    assert got.shape == (5, 3, 2)
    for i, j, k in np.ndindex(got.shape):
        assert got[i, j, k] == specific_attenuation_db_per_km(f[i, 0, 0], p[j, 0], 288.15, rho[k])
    assert np.shape(specific_attenuation_db_per_km(1e11)) == ()
    assert np.all(got[..., 1] > got[..., 0])


def test_pressure_is_that_of_dry_air():
    e = vapour_pressure_pa(7.5, 288.15)
    assert e == pytest.approx(997.29, abs=0.01)  # the validation sheet prints e = 9.97288878634056 hPa
    barometer = specific_attenuation_db_per_km(60e9, 101325.0 - e)
    assert barometer < specific_attenuation_db_per_km(60e9, 101325.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((1.1e12,), "frequency_hz"),
        ((0.0,), "frequency_hz"),
        ((np.nan,), "frequency_hz"),
        ((1e11, np.array([1e5, -1.0])), "pressure_pa"),
        ((1e11, 1e5, 0.0), "temperature_k"),
        ((1e11, 1e5, np.inf), "temperature_k"),
        ((1e11, 1e5, 288.0, -0.1), "vapour_density_g_m3"),
        ((1e11, 1e5, 288.0, np.nan), "vapour_density_g_m3"),
    ],
)
def test_out_of_range_is_refused(arguments, says):
    with pytest.raises(Misuse, match=says):
        specific_attenuation_db_per_km(*arguments)
