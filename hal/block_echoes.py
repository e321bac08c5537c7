"""What a site's receive chains hear of its own wide-band blocks: every path there and back, a matched sample a subcarrier (pure)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hal.array import AntennaArray, cis
from hal.errors import Misuse
from hal.frontend import SITE, Emission
from hal.medium import Paths, beam_gains
from hal.record import Array, Complex, Int

__all__ = ["block_echoes"]


def block_echoes(
    emission: Emission,
    paths: Paths,
    transmit: AntennaArray,
    receive: AntennaArray,
    row: Int[Array, " event"],
    response: Complex[Array, "row subcarrier element chain"],
    leakage: float,
    length_s: float,
) -> Complex[Array, "event chain subcarrier"]:
    """Echoes of wide-band events of this site at its receive chains' outputs without noise (sqrt(W)), a sample a subcarrier.

    The symbols are known, so a matched filter over ``length_s`` (s) from the event's instant makes one sample of each subcarrier:

    ``y[c, m] = sqrt(power[m]) (sum_p gain_p k_p b_c(u_p, f_m) (a(u_p, f_m)^T r d) exp(-j 2 pi (f_m - f_c) delay_p) + leakage sum d)``

    ``r`` and ``b`` are the halves' responses towards the path at that subcarrier (squint included), ``d`` the streams' weights added up (all streams
    send the same known symbols), ``k_p = sinc(nu length) exp(j 2 pi nu (start + length / 2))`` what Doppler leaves of the path, ``start`` the time
    since its gain's instant. ``leakage`` is the amplitude from each transmit chain's port to each receive chain's, as in ``reception.frames``.
    ``row`` and ``response`` are the receive half's. The delay keeps within the symbols' prefix, so subcarriers stay orthogonal. Left out: what the
    sender's flaws add that is no data (``Emission.distortion``), which the filter leaves ``length x spacing`` times weaker than it is.
    Every event is computed by a fixed order of operations of its own. Source: papers/000 eqs (8)-(9), through a combiner.
    Raises Misuse for an emission that is not all from the site.
    """
    drive, source = emission.drive, np.asarray(emission.source)
    if not np.all(source == SITE):
        raise Misuse("emission.source: events from the site and from others must come as separate emissions")
    t_ns = np.asarray(drive.t_ns)
    block = np.maximum(np.searchsorted(paths.t_ns, t_ns, side="right") - 1, 0)
    start_s = (t_ns - paths.t_ns[block]) * 1e-9
    kept = np.sinc(paths.doppler_hz * length_s) * cis(
        2 * np.pi * paths.doppler_hz * (start_s[:, None] + length_s / 2)
    )  # [event path]
    sent = beam_gains(paths, transmit, emission.response, drive.frequency_hz, "departure")
    got = beam_gains(paths, receive, response, drive.frequency_hz, "arrival")
    ramp = cis(-2 * np.pi * (drive.frequency_hz - paths.carrier_hz) * paths.delay_s[:, None])
    out: Array = _there_and_back(
        np.ascontiguousarray(sent),
        np.asarray(emission.row),
        np.ascontiguousarray(got),
        np.asarray(row),
        np.ascontiguousarray(paths.gain[block] * kept) * (paths.source == SITE),
        ramp,
        np.ascontiguousarray(drive.digital, dtype=np.complex128),
        np.sqrt(drive.power_w),
        leakage,
    )
    return out


@njit(cache=True)
def _there_and_back(
    sent: Any, sent_row: Any, got: Any, got_row: Any, weight: Any, ramp: Any, digital: Any, root_w: Any, leakage: float
) -> Any:  # pragma: no cover - compiled
    events, paths = weight.shape
    subcarriers, chains = got.shape[2], got.shape[3]
    out = np.zeros((events, chains, subcarriers), dtype=np.complex128)
    port = np.empty(digital.shape[1], dtype=np.complex128)
    for e in range(events):
        whole = 0j
        for c in range(len(port)):
            port[c] = 0j
            for s in range(digital.shape[2]):
                port[c] += digital[e, c, s]
            whole += port[c]
        for m in range(subcarriers):
            for p in range(paths):
                if weight[e, p] == 0:
                    continue
                field = 0j
                for c in range(len(port)):
                    field += sent[sent_row[e], p, m, c] * port[c]
                field *= weight[e, p] * ramp[p, m]
                for c in range(chains):
                    out[e, c, m] += field * got[got_row[e], p, m, c]
            for c in range(chains):
                out[e, c, m] = root_w[e, m] * (out[e, c, m] + leakage * whole)
    return out
