"""Sionna RT on a CPU: the channel of one link after its user has moved: line of sight, no scatterers, 256 elements, 32 subcarriers."""

import glob
import os
import time
from collections.abc import Callable
from typing import Any

DISTRIBUTION = "sionna-rt"
CARRIER_HZ, SPACING_HZ, SUBCARRIERS, SIDE = 100e9, 0.25e9, 32, 16
SITE_M, USER_M = (0.0, 0.0, 10.0), (40.0, 10.0, 1.5)


def ready() -> Callable[[], tuple[float, Any]]:
    newest = sorted(glob.glob("/usr/lib/*/libLLVM.so.*") + glob.glob("/usr/lib/*/libLLVM-[0-9][0-9].so"))
    if newest:  # its compiler aborts on versions before 16
        os.environ.setdefault("DRJIT_LIBLLVM_PATH", newest[0] if ".so." in newest[0] else newest[-1])
    import numpy as np
    import sionna.rt as rt

    scene = rt.load_scene()
    scene.frequency = CARRIER_HZ
    array = {"pattern": "iso", "polarization": "V", "vertical_spacing": 0.5, "horizontal_spacing": 0.5}
    scene.tx_array = rt.PlanarArray(num_rows=SIDE, num_cols=SIDE, **array)
    scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, **array)
    user = rt.Receiver("user", position=list(USER_M))
    scene.add(rt.Transmitter("site", position=list(SITE_M)))
    scene.add(user)
    solve, frequency_hz = rt.PathSolver(), rt.subcarrier_frequencies(SUBCARRIERS, SPACING_HZ)

    def update() -> tuple[float, Any]:
        begun = time.process_time()
        user.position = list(USER_M)
        paths = solve(
            scene,
            max_depth=0,
            los=True,
            specular_reflection=False,
            diffuse_reflection=False,
            refraction=False,
            synthetic_array=True,
        )
        h = paths.cfr(frequencies=frequency_hz, normalize_delays=False, out_type="numpy")[0, 0, 0, :, 0]
        spent = time.process_time() - begun
        middle = h[:, SUBCARRIERS // 2]
        return spent, {
            "delay_s": float(np.array(paths.tau).ravel()[0]),
            "h": [[float(v.real), float(v.imag)] for v in middle],
        }

    update()  # compiles
    return update
