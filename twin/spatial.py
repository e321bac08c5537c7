"""Several users in one block: a shared analog row, a stream each, weights from estimated channels, and what rates they should bring."""

from __future__ import annotations

import numpy as np

from hal.array import steering, to_array_frame, to_world_frame
from hal.errors import Misuse
from hal.frontend import BeamReport, FrontendSpec
from hal.network import response
from hal.record import Array, Complex, Float, Int
from twin.estimation.ring import Vectors
from twin.physics.sinr import mrt, rzf
from twin.records import ChannelEstimate, PilotObservation, Plan

__all__ = ["believed_bps", "reciprocal", "shared_directions", "stream_bits", "stream_weights", "streams_of"]


def reciprocal(spec: FrontendSpec) -> None:
    """Raise Misuse unless both halves have the same elements in the same places: only then is the channel heard the channel sent through."""
    sent, heard = spec.transmit.array, spec.receive.array
    if not (
        np.array_equal(sent.position_m, heard.position_m)
        and np.array_equal(sent.rotation, heard.rotation)
        and np.array_equal(sent.origin_m, heard.origin_m)
    ):
        raise Misuse(
            f"site {spec.name}: service 'spatial' weighs streams by channels that the receive half heard, so both halves need the same array"
        )


def streams_of(plan: Plan) -> Int[Array, " stream"]:
    """Columns of ``plan.served`` that have a stream, in the order of streams: all who are served at all."""
    return np.flatnonzero(plan.served.any(axis=0))


def shared_directions(spec: FrontendSpec, direction: Float[Array, "user 3"]) -> Float[Array, "1 chain 3"]:
    """Where each chain of the shared row points: chain c at user c, round and round.

    Of a digital array this turns phases that the weights turn back; of a hybrid one it gives each user a chain of its own.
    """
    chains = np.arange(len(spec.transmit.network.wired))
    return np.asarray(direction[chains % len(direction)][None])


def stream_weights(
    vectors: Vectors, pilots: PilotObservation, estimate: ChannelEstimate
) -> Complex[Array, "update chain stream"]:
    """Baseband weights of every stream after each update, causal: row m rests on pilots ``0 .. m``.

    With A the shared row's response in force, ``g = A^T h~`` and ``E`` the error's covariance behind A, stream k has the conjugate of
    ``g_k`` ("mrt") or of ``(sum_i p_i (g_i g_i^H + E_i) + sigma^2 I)^-1 g_k`` ("rzf"), scaled so that each stream radiates its equal share. A
    blind user's g is its steering vector and E all of its R-hat. Weights are flat over the band: covariances are means over subcarriers,
    g_k the strongest direction among them.

    Source: papers/004, eq 17 (MRT); ``twin.physics.sinr.rzf``.
    """
    plan, spec = pilots.plan, pilots.spec
    sent = _in_force(plan, pilots.transmit_beam, spec)
    column = streams_of(plan)
    row = np.searchsorted(pilots.user, plan.user[column])
    there = np.isin(plan.user[column], pilots.user)
    updates, chains = len(vectors.estimate), sent.shape[1]
    out = np.zeros((updates, chains, len(column)), np.complex128)
    who = row[there]
    if not who.size:
        return out
    power_w = np.full(len(who), spec.transmit_power_w / len(column) / vectors.estimate.shape[2])
    blind = np.zeros(len(who), bool) if plan.blind is None else plan.blind[column[there]]
    towards = steering(
        spec.transmit.array,
        to_array_frame(spec.transmit.array, to_world_frame(spec.receive.array, estimate.direction[who])),
        spec.carrier_hz,
    )
    for m in range(updates):
        heard = vectors.estimate[m, who] @ sent  # [user subcarrier chain]
        direction = np.where(blind[:, None], towards @ sent, _strongest(heard))
        known = np.einsum("kma,kmb->kab", heard, heard.conj()) / heard.shape[1]
        error = np.where(blind[:, None, None], vectors.prior[who], vectors.error[m, who])
        unknown = sent.T @ error @ sent.conj() + np.where(blind[:, None, None], 0.0, known)
        if plan.baseband == "mrt":
            beam = mrt(direction)
        else:
            beam = rzf(direction, np.zeros_like(direction), unknown, power_w, pilots.numerology.user_noise_w)
        weight = beam.conj().T  # [chain stream]
        size = np.linalg.norm(sent @ weight, axis=0)
        out[m][:, there] = weight / np.maximum(size, 1e-30) / np.sqrt(len(column))
    return out


def stream_bits(
    vectors: Vectors,
    pilots: PilotObservation,
    digital: Complex[Array, "update chain stream"],
    power_w: Float[Array, " subcarrier"],
) -> Float[Array, "update user"]:
    """bit/s/Hz of each user of ``pilots`` after each update, if its channel is what it is believed to be then; 0 for the unserved.

    ``log2(1 + S_kk / (sum_i S_ki + sigma^2))``, ``S_ki = p |h~_k^T A d_i|^2 + p d_i^H A^H E_k^* A d_i``. Ageing until the next update is left out.
    """
    plan, numerology = pilots.plan, pilots.numerology
    sent = _in_force(plan, pilots.transmit_beam, pilots.spec)
    column = streams_of(plan)
    out = np.zeros((len(digital), len(pilots.user)))
    for stream, user in enumerate(plan.user[column]):
        at = np.flatnonzero(pilots.user == user)
        if not at.size:
            continue
        for m, weights in enumerate(digital):
            field = sent @ weights  # [element stream]
            heard = np.abs(vectors.estimate[m, at[0]] @ field) ** 2
            unsure = np.einsum("es,ef,fs->s", field, vectors.error[m, at[0]], field.conj()).real
            power = (heard + unsure) * power_w[:, None]
            own = power[:, stream]
            rest = power.sum(axis=1) - own + numerology.user_noise_w
            out[m, at[0]] = np.mean(np.log2(1 + own / rest))
    return out


def believed_bps(bits: Float[Array, "update user"], pilots: PilotObservation) -> Float[Array, " user"]:
    """Rates over the whole period from ``stream_bits``, pilots charged."""
    plan, numerology = pilots.plan, pilots.numerology
    block = np.arange(numerology.blocks)
    update = np.searchsorted(plan.update_block, block, side="right") - 1
    on = (update >= 0) & (update < len(bits)) & plan.served.any(axis=1)
    share = np.where(np.isin(block, plan.update_block), 1 - numerology.pilot_ns / numerology.block_ns, 1.0)
    time_s = np.bincount(update[on], share[on], minlength=len(bits))[: len(bits)] * numerology.block_ns
    width_hz = numerology.subcarrier_spacing_hz * len(numerology.subcarrier_hz)
    return np.asarray(time_s @ bits * width_hz / numerology.subframe_ns)


def _in_force(plan: Plan, report: BeamReport, spec: FrontendSpec) -> Complex[Array, "element chain"]:
    beam = report.setpoint if report.readback is None else report.readback
    slot = plan.slot[plan.slot >= 0][0]
    row = np.flatnonzero(beam.slot == slot)
    held = response(
        spec.transmit.network,
        beam.delay_s[row],
        beam.phase_rad[row],
        beam.amplitude[row],
        np.array([spec.carrier_hz]),
    )
    return np.asarray(held[0, 0])


def _strongest(heard: Complex[Array, "user subcarrier chain"]) -> Complex[Array, "user chain"]:
    if heard.shape[1] == 1:
        return heard[:, 0]
    return np.asarray(np.linalg.svd(heard, full_matrices=False)[2][:, 0])
