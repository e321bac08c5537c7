"""Two environments over one twin: share out the street's blocks among its users, and keep a beam on one that moves.

An observation is a table, a row a user or an axis, flattened, every entry within -1 .. 1; its columns are the fields of a record. An
action is one number a row. The episode is a run in lock-step; its first subframes are the built-in chain's, so that users are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from hal import wire
from hal.array import half_power_beamwidth
from hal.errors import Misuse, RemoteFault
from hal.record import Array, Float, record
from hal.session import Keys
from twin.gym.hosts import Apart, Elsewhere, Host, Inside, about
from twin.outside import Claim, Moment
from twin.physics.draws import Draws
from twin.planning._rows import to_transmit
from twin.planning.fixed import _rate_bps as believed_rates
from twin.planning.fixed import _user_directions as believed_directions
from twin.precoding.delay_phase import steer
from twin.records import BeamsCommand, Plan
from twin.scenario import Scenario, load, loads
from twin.world import Mover, World

__all__ = ["AxisView", "Beam", "Steering", "Street", "UserView", "box"]

BITS = 10.0  # bit/s/Hz that stand for 1 in an observation
SHARPEN = 4.0  # of shares: an action of 1 beside one of -1 gets e^8 as much
GBPS = 1e-9

TRACKING = """
title: beam tracking
duration_s: 10
communication: { subcarriers: 8 }
sensing: { fidelity: bound, frames_per_dwell: 8, dwells: 1 }
sites:
  bs0:
    transmit: { array: { kind: upa, columns: 16, rows: 16 }, network: { delay_lines: [4, 4] } }
    receive: { array: { kind: upa, columns: 8, rows: 8 } }
users:
  - name: drone
    mobility:
      kind: gauss_markov
      position_m: [16, 0, 5]
      velocity_mps: [0, 0, 0]
      sigma_mps: [5, 14, 4]
      memory_s: 0.6
      low_m: [10, -12, 1]
      high_m: [24, 12, 9]
"""


@record
class UserView:
    """What ``Street`` sees of each user at ``steer``; users in the order of the run."""

    attached: Float[Array, " user"]  # 1: takes part now
    served: Float[Array, " user"]  # share of the data blocks of the plan in force
    proposed: Float[Array, " user"]  # share in the plan that the built-in chain proposes
    rate: Float[Array, " user"]  # that a matched beam would carry, as believed, of 10 bit/s/Hz over the band
    azimuth: Float[Array, " user"]  # direction cosine uy, receive array's frame
    elevation: Float[Array, " user"]  # uz
    known: Float[Array, " user"]  # 1: has a place in beam memory and a believed direction


@record
class AxisView:
    """What ``Beam`` sees at ``steer``, for each axis of the array (uy, uz)."""

    offset: Float[Array, " axis"]  # of the believed direction from where the beam points, in beamwidths over 4
    drift: Float[Array, " axis"]  # of the believed direction since the last moment, in beamwidths


def box(view: Any, sizes: Mapping[str, int]) -> spaces.Box:
    """The space of a record of columns, from its descriptor: as many rows as its axis has, flattened; entries within -1 .. 1."""
    columns = wire.schema(view)["properties"].values()
    (rows,) = {sizes[axis] for column in columns for axis in column["axes"]}
    return spaces.Box(-1.0, 1.0, (rows * len(columns),), np.float32)


def _table(view: Any) -> Float[Array, " entry"]:
    columns = np.stack([getattr(view, field.name) for field in fields(view)], axis=1)
    return np.asarray(np.clip(columns, -1.0, 1.0).astype(np.float32).ravel())


class Steering(gymnasium.Env[Any, Any]):
    """What both have in common: claim ``knobs``, be asked, answer; the reward is what users were delivered, in Gbit/s.

    ``scenario`` is a file (or a Scenario); ``subframes`` are the steps of an episode, ``warm_up`` those before it. ``host`` is where the twin
    runs: ``inside`` this process, ``apart`` in its own, or the state endpoint of one that runs already (then ``reset`` begins where that one is,
    takes no seed but its own, and ends with it); ``keys`` open that one's door. ``reset(seed=s)`` is the run of seed s; without a seed the
    next is drawn. The end of an episode truncates it; only a run that ends by itself terminates one.
    """

    knobs: tuple[str, ...]
    view: Any
    metadata = {"render_modes": []}  # noqa: RUF012  gymnasium's own

    def __init__(
        self,
        scenario: str | Path | Scenario,
        subframes: int,
        warm_up: int,
        host: Literal["inside", "apart"] | str = "inside",
        keys: Keys | None = None,
        sets: Mapping[str, Any] | None = None,
    ) -> None:
        if not (subframes >= 1 and warm_up >= 0):
            raise Misuse(f"subframes = {subframes}, warm_up = {warm_up}: must be >= 1 and >= 0")
        self.subframes, self.warm_up = subframes, warm_up
        self._at, self._keys = host, keys
        self._scenario: Scenario | None = None
        if host in ("inside", "apart"):
            self._scenario = scenario if isinstance(scenario, Scenario) else load(scenario, sets or {})
            (self.site,) = self._scenario.sites
            movers = [
                Mover(name=m.name, is_user=True, rcs_m2=m.rcs_m2, mobility=m.mobility) for m in self._scenario.users
            ]
            users = len(World(movers, Draws(0)).users)
        else:
            told = about(host, keys)
            (self.site,), users = told["sites"], len(told["users"])
        self._host: Host | None = None
        self._moment: Moment | None = None
        self._left = 0
        sizes = {"user": users, "axis": 2}
        self.observation_space = box(self.view, sizes)
        rows = (self.observation_space.shape or (0,))[0] // len(fields(self.view))
        self.action_space = spaces.Box(-1.0, 1.0, (rows,), np.float32)

    @property
    def moment(self) -> Moment:
        """What is asked now, whole: for agents that want more than the table."""
        if self._moment is None:
            raise Misuse("there is no episode: call reset() first")
        return self._moment

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: the run of ``seed``, its first ``warm_up`` subframes steered by the built-in chain."""
        super().reset(seed=seed)
        self.close()
        self._host = self._open(int(self.np_random.integers(2**31)) if seed is None else seed, seed is None)
        self._left = self.subframes
        self._begin()
        self._moment, rate_bps = self._host.observe()
        for _ in range(self.warm_up):
            self._warm(self._moment)
            self._host.act(**self.proposal())
            self._moment, rate_bps = self._host.observe()
        return self._seen(self._moment), self._info(rate_bps)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Answer with the action; what comes back is the next moment, and what was delivered in the subframe before it."""
        return self.answer(**self.command(np.asarray(action, dtype=np.float64)))

    def answer(self, **knobs: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """``step`` with commands instead of an action: ``answer()`` changes nothing, ``answer(**proposal())`` does as the built-in chain would."""
        if self._host is None or self._moment is None:
            raise Misuse("step: there is no episode; call reset() first")
        self._host.act(**knobs)
        try:
            self._moment, rate_bps = self._host.observe()
        except RemoteFault:
            self.close()
            return np.zeros(self.observation_space.shape or (), np.float32), 0.0, True, False, {}
        self._left -= 1
        seen, told = self._seen(self._moment), self._info(rate_bps)
        if not self._left:
            self.close()
        return seen, float(rate_bps.sum() * GBPS), False, not self._left, told

    def proposal(self) -> dict[str, Any]:
        """What the built-in chain would do with the knobs, at this moment."""
        proposal = self.moment.proposal
        assert proposal is not None
        return {knob: getattr(proposal, knob) for knob in (name.rpartition(".")[2] for name in self.knobs)}

    def command(self, action: Float[Array, " row"]) -> dict[str, Any]:
        """What an action means for the knobs; each environment says."""
        raise NotImplementedError

    def close(self) -> None:
        """End the run."""
        host, self._host, self._moment = self._host, None, None
        if host is not None:
            host.close()

    def _begin(self) -> None:
        """Forget the last episode."""

    def _warm(self, moment: Moment) -> None:
        """A moment that the built-in chain answers."""

    def _seen(self, moment: Moment) -> Float[Array, " entry"]:
        raise NotImplementedError

    def _info(self, rate_bps: Float[Array, " user"]) -> dict[str, Any]:
        return {"k": self.moment.k, "t_ns": self.moment.t_ns, "rate_bps": rate_bps}

    def _open(self, seed: int, any_seed: bool) -> Host:
        claim = Claim(
            name="gym", knobs=tuple(f"{self.site}.{knob}" for knob in self.knobs), observe=("belief", "proposal")
        )
        if self._scenario is None:
            return Elsewhere(self._at, claim, self._keys, None if any_seed else seed)
        period_ns = self._scenario.subframe.period_ns
        lasting = (self.warm_up + self.subframes + 1) * period_ns
        scenario = replace(self._scenario, seed=seed, duration_ns=lasting)
        return Inside(scenario, claim) if self._at == "inside" else Apart(scenario, claim)


class Street(Steering):
    """``isac_twin/Street-v0``: who gets how much of each subframe's data blocks.

    An action's entry u is the wish of user u: the blocks that the built-in plan gives to anybody are shared out as ``softmax(4 action)`` among
    users that can be served. The plan answered at one moment is played in the next subframe, so it is paid for at the moment after the next
    (``served`` shows the plan in force). Beams, dwells and pilots stay the built-in chain's.
    """

    knobs = ("plan",)
    view = UserView

    def __init__(
        self,
        scenario: str | Path | Scenario = "scenarios/street.yaml",
        subframes: int = 100,
        warm_up: int = 20,
        host: Literal["inside", "apart"] | str = "inside",
        keys: Keys | None = None,
        sets: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(scenario, subframes, warm_up, host, keys, sets)

    def command(self, action: Float[Array, " row"]) -> dict[str, Any]:
        """The built-in plan with its data blocks shared out anew, each user's in one stretch."""
        plan = self.proposal()["plan"]
        block = np.flatnonzero(plan.served.any(axis=1))
        able = np.flatnonzero((plan.user_slot >= 0) & self._known(plan))
        if plan.baseband is not None or not block.size or not able.size:
            return {"plan": plan}
        wish = np.exp(SHARPEN * action[np.searchsorted(self._users(), plan.user[able])])
        edges = np.round(np.cumsum(wish) / wish.sum() * block.size)
        who = able[np.searchsorted(edges, np.arange(block.size), side="right").clip(max=able.size - 1)]
        served, slot = np.zeros_like(plan.served), plan.slot.copy()
        served[block, who], slot[block] = True, plan.user_slot[who]
        return {"plan": replace(plan, served=served, slot=slot)}

    def _users(self) -> Any:
        assert self._host is not None
        return np.array(sorted(self._host.grant.users.values()))

    def _known(self, plan: Plan) -> Any:
        belief, host = self.moment.belief, self._host
        assert belief is not None
        assert host is not None
        return believed_rates(plan.user, belief, host.grant.spec, host.grant.numerology) > 0

    def _seen(self, moment: Moment) -> Float[Array, " entry"]:
        host, belief, proposed = self._host, moment.belief, self.proposal()["plan"]
        assert host is not None
        assert belief is not None
        spec, numerology, users = host.grant.spec, host.grant.numerology, self._users()
        direction, known = believed_directions(users, belief, spec, belief.t_ns)
        rate = believed_rates(users, belief, spec, numerology)
        band_hz = len(numerology.subcarrier_hz) * numerology.subcarrier_spacing_hz
        view = UserView(
            attached=np.isin(users, moment.user).astype(float),
            served=_shares(moment.plan, users),
            proposed=_shares(proposed, users),
            rate=rate / (BITS * band_hz),
            azimuth=direction[:, 1] * known,
            elevation=direction[:, 2] * known,
            known=known.astype(float),
        )
        return _table(view)


class Beam(Steering):
    """``isac_twin/Beam-v0``: one user that keeps turning, and the transmit beam that must stay on it.

    The beam begins where the built-in chain last pointed it; an action moves it by up to a beamwidth in each direction cosine, at once: the
    subframe's data goes through it, and the next moment pays for it. Sensing and what the receiver listens through stay the built-in chain's.
    """

    knobs = ("beams",)
    view = AxisView
    _pointing: Float[Array, " axis"]
    _believed: Float[Array, " axis"]

    def __init__(
        self,
        scenario: str | Path | Scenario | None = None,
        subframes: int = 200,
        warm_up: int = 20,
        host: Literal["inside", "apart"] | str = "inside",
        keys: Keys | None = None,
        sets: Mapping[str, Any] | None = None,
    ) -> None:
        made = loads(TRACKING, "<Beam-v0>", dict(sets or {})) if scenario is None else scenario
        super().__init__(made, subframes, warm_up, host, keys, sets)
        self._begin()

    def command(self, action: Float[Array, " row"]) -> dict[str, Any]:
        """The built-in beams with the user's data beam pointed elsewhere."""
        host, beams, plan = self._host, self.proposal()["beams"], self.moment.decided.plan
        assert host is not None
        assert plan is not None
        assert plan.user_slot is not None
        spec = host.grant.spec
        width = np.array(half_power_beamwidth(spec.transmit.array, spec.carrier_hz))
        self._pointing = np.clip(self._pointing + np.clip(action, -1, 1) * width, -0.7, 0.7)
        row = np.flatnonzero(np.isin(beams.transmit_slot, plan.user_slot))
        return {"beams": self._turned(beams, row)}

    def _turned(self, beams: BeamsCommand, row: Any) -> BeamsCommand:
        assert self._host is not None
        spec = self._host.grant.spec
        y, z = self._pointing
        direction = np.array([[[np.sqrt(1 - y * y - z * z), y, z]]])
        settings = steer(spec.transmit, direction, spec.carrier_hz)
        rows: dict[str, Any] = {}
        for name in ("delay_s", "phase_rad", "amplitude"):
            rows[f"transmit_{name}"] = getattr(beams, f"transmit_{name}").copy()
            rows[f"transmit_{name}"][row] = getattr(settings, name)[0]
        return replace(beams, **rows)

    def _begin(self) -> None:
        self._pointing, self._believed = np.zeros(2), np.zeros(2)

    def _direction(self, moment: Moment) -> Float[Array, " axis"]:
        """Where the user is believed to be in the middle of this subframe's data, in the transmit array's frame."""
        assert self._host is not None
        assert moment.belief is not None
        grant = self._host.grant
        middle_ns = moment.t_ns + (moment.plan.sensing_ns + grant.numerology.subframe_ns) // 2
        direction, known = believed_directions(moment.plan.user[:1], moment.belief, grant.spec, middle_ns)
        if not known.any():
            return self._believed
        return np.asarray(to_transmit(grant.spec, direction)[0, 1:])

    def _warm(self, moment: Moment) -> None:
        self._believed = self._pointing = self._direction(moment)

    def _seen(self, moment: Moment) -> Float[Array, " entry"]:
        assert self._host is not None
        spec = self._host.grant.spec
        width = np.array(half_power_beamwidth(spec.transmit.array, spec.carrier_hz))
        before, self._believed = self._believed, self._direction(moment)
        return _table(
            AxisView(offset=(self._believed - self._pointing) / width / 4, drift=(self._believed - before) / width)
        )


def _shares(plan: Plan, users: Any) -> Float[Array, " user"]:
    blocks = max(int(plan.served.any(axis=1).sum()), 1)
    shares = np.zeros(len(users))
    shares[np.searchsorted(users, plan.user)] = plan.served.sum(axis=0) / blocks
    return shares
