"""Recipe of ``gas_attenuation.csv``: ``pip install itur==0.4.0 && python gas_attenuation.py > gas_attenuation.csv``.

itur 0.4.0 calls its line-by-line model P.676-12. Its pressure argument is the pressure of the dry air in hPa: it adds
the vapour's partial pressure ``rho T / 216.7`` to it wherever the Recommendation writes p + e.
"""

import itertools

import itur
from itur.models import itu676

assert itur.__version__ == "0.4.0"
itu676.change_version(12)

GRID = [*range(10, 1001, 10)]
LINES = [
    22.235,
    57.6,
    60.3,
    62.5,
    118.75,
    183.31,
    325.15,
    380.2,
    556.94,
    752.03,
    987.93,
]  # on the peaks, where widths count
CONDITIONS = [  # dry pressure (hPa), temperature (K), vapour density (g/m3)
    (1013.25, 288.15, 7.5),
    (1013.25, 288.15, 0.0),
    (1013.25, 313.15, 40.0),
    (980.0, 253.15, 0.7),
    (300.0, 230.0, 0.05),
    (10.0, 220.0, 0.001),  # thin air, where the Zeeman and Doppler terms set the widths
]

if __name__ == "__main__":
    print("frequency_hz,dry_pressure_pa,temperature_k,vapour_density_g_m3,db_per_km")
    for (pressure, temperature, density), f in itertools.product(CONDITIONS, sorted(GRID + LINES)):
        gamma = itu676.gamma_exact(f, pressure, density, temperature).value
        print(f"{f * 1e9:.0f},{pressure * 100:.0f},{temperature},{density},{gamma:.10g}")
