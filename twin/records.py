"""What passes between the rooms: truth, observations, belief, commands, key figures. Data only.

Entities are struct of arrays: one column a property, one row an entity, ids ascending. No field of an ``*Observation`` or of ``Belief``
carries truth; ``tests/contracts/test_no_truth.py`` walks them.
"""

from __future__ import annotations

from hal.frontend import BeamReport, Drive, FrontendSpec, Listen, Reception
from hal.record import Array, Bool, Complex, Float, Int, record

__all__ = [
    "BasebandCommand",
    "BeamsCommand",
    "Belief",
    "BlockEchoes",
    "Change",
    "ChannelEstimate",
    "Clock",
    "Command",
    "Detections",
    "EchoObservation",
    "Margins",
    "Numerology",
    "PilotObservation",
    "Plan",
    "Playing",
    "Refinement",
    "Tracks",
    "Truth",
]


@record
class Truth:
    """Who is where at one instant. Never given to an algorithm."""

    t_ns: int
    entity: Int[Array, " entity"]  # unique for the whole run, ascending
    is_user: Bool[Array, " entity"]
    position_m: Float[Array, "entity 3"]  # world frame
    velocity_mps: Float[Array, "entity 3"]
    rcs_m2: Float[Array, " entity"]


@record
class Numerology:
    """The frame structure and the bands: what every stage of the loop may know. Bands and durations are separate fields."""

    carrier_hz: float
    subframe_ns: int
    blocks: int
    block_ns: int  # blocks * block_ns <= subframe_ns; the rest is a guard at the end
    # communication band
    subcarrier_hz: Float[Array, " subcarrier"]  # absolute frequencies
    subcarrier_spacing_hz: float
    # sensing waveform
    delay_bins: int
    doppler_bins: int
    sample_rate_hz: float  # delay_bins * spacing
    roll_off: float
    pulse_span: int  # support of the square-root raised cosine, in samples each side
    prefix_ns: int  # cyclic prefix of a frame
    frame_ns: int  # whole frame, prefix and suffix included
    frames_per_dwell: int
    # pilots
    pilot_ns: int
    pilot_power_w: float  # total over the band, a user
    user_noise_w: float  # of one subcarrier at a user


@record
class Plan:
    """The knob ``plan``: what one subframe does, decided one subframe ahead.

    Blocks ``0 .. sensing_blocks-1`` hold the sensing dwells, back to back; data blocks follow.
    """

    k: int  # the subframe this plan is for
    sensing_blocks: int
    sensing_ns: int  # T_l itself; dwells * frames_per_dwell * frame_ns <= sensing_ns <= sensing_blocks * block_ns
    dwell_transmit_slot: Int[Array, " dwell"]
    dwell_receive_slot: Int[Array, " dwell"]
    dwell_target: Int[Array, " dwell"]  # track the dwell looks at; -1: a search dwell
    update_block: Int[Array, " update"]  # blocks that open with pilots, ascending, all >= sensing_blocks
    pilot_receive_slot: Int[Array, "update user"]  # through which receive beam each user's pilot is heard
    slot: Int[Array, " block"]  # transmit slot in force in each block; -1: silent
    served: Bool[Array, "block user"]  # who gets data in each block; users in the order of ``user``
    user: Int[Array, " user"]
    # a planner's own memory, carried from plan to plan; None and 0: it keeps none
    user_slot: Int[Array, " user"] | None = None  # beam memory slot of each user, in both halves; -1: none left
    looked: Int[Array, "look 3"] | None = None  # track (or -1), user (or -1) and the subframe of the last dwell on it
    search_cell: int = 0  # raster cell of the next search dwell
    throughput: Float[Array, " user"] | None = None  # running mean of the believed rate given to each user, bit/s
    # users served at once, a stream each: None: by turns
    baseband: str | None = None  # "mrt" or "rzf": what the streams' weights are made by
    blind: Bool[Array, " user"] | None = None  # whose stream rests on the tracked angle alone, not on its pilots
    # what a planner that predicts expects of the subframe, and why it is as it is
    planned_bps: Float[Array, " user"] | None = None  # mean over channels drawn from the belief; NaN: not predicted
    formula_bps: Float[Array, " user"] | None = None  # by equation (22) of papers/004, ageing included
    reason: tuple[str, ...] | None = None
    # of a plan that listens to its data blocks: through which receive slot each is heard (-1: not), and which track that is for
    echo_slot: Int[Array, " block"] | None = None
    echo_track: Int[Array, " block"] | None = None


@record
class BeamsCommand:
    """The knob ``beams``: rows for both halves' beam memory, latched together."""

    transmit_slot: Int[Array, " row"]
    transmit_delay_s: Float[Array, "row chain line"]
    transmit_phase_rad: Float[Array, "row chain element"]
    transmit_amplitude: Float[Array, "row chain element"]
    receive_slot: Int[Array, " rrow"]
    receive_delay_s: Float[Array, "rrow rchain rline"]
    receive_phase_rad: Float[Array, "rrow rchain relement"]
    receive_amplitude: Float[Array, "rrow rchain relement"]


@record
class BasebandCommand:
    """The knob ``baseband``: digital weights on a causal update axis, and power over subcarriers.

    Row ``update`` holds from ``update_block[update]`` to the next; a pilot changes no earlier block.
    """

    slot: Int[Array, " slot"]
    digital: Complex[Array, "update slot chain stream"]
    power_w: Float[Array, "update slot subcarrier"]


@record
class Change:
    """An admin or a fork changed something: with the seed and the controllers' acts, all that the rest of the run depends on."""

    t_ns: int  # of the first subframe that goes by it
    scenario: str  # whole, as the YAML of a scenario file


@record
class Clock:
    """How the loop kept pace, by the wall clock: said, not recorded, and no part of the run hash. Of the subframe before the one it is said in."""

    k: int  # the subframe it is said in
    t_ns: int  # its start, simulated
    lag_ns: int  # behind the deadline; 0 where not paced
    budget_ns: int  # wall time a subframe has at this pace
    late: int  # deadlines missed so far
    stage_ns: dict[str, int]  # wall time of each stage; steer includes sensing, tracking, planning and precoding


@record
class Margins:
    """How near a subframe came to what cannot be (``twin.invariants``): said, not recorded, and no part of the run hash."""

    t_ns: int  # start of the subframe it is about
    radiated: float  # most power of an event over the nameplate's; at most 1
    gathered: float  # most SNR of a block over the matched-filter bound; at most 1
    least: float  # pivot of a covariance scaled to unit diagonal; at least 0
    covered: float  # share of the subframe that sensing and served blocks take; at most 1


@record
class Playing:
    """Where a replay stands: said on ``replay.`` whenever that changes, and twice a second."""

    t_ns: int  # of the subframe said last
    first_ns: int  # of the stretch that is played
    last_ns: int
    period_ns: int  # between two subframes
    playing: bool  # False: paused, or at the end
    speed: float  # simulated over wall time; 0: as fast as it goes
    loop: bool  # begins again at the end


@record
class Command:
    """What a controller may do: any of its three knobs; None leaves one as it is."""

    plan: Plan | None = None
    beams: BeamsCommand | None = None
    baseband: BasebandCommand | None = None


@record
class Detections:
    """What one dwell found, in the array frame: 4-D estimates with covariance.

    Order of the four parameters everywhere: ``uy, uz`` (direction cosines), ``range_m``, ``velocity_mps`` (closing speed).
    """

    t_ns: Int[Array, " detection"]  # time tag: the dwell's centre
    dwell: Int[Array, " detection"]
    value: Float[Array, "detection 4"]
    covariance: Float[Array, "detection 4 4"]
    snr_db: Float[Array, " detection"]  # integrated, after the combiner


@record
class BlockEchoes:
    """Echoes of data blocks of the subframe before, an event a block: known symbols, a matched sample a subcarrier."""

    drive: Drive  # what was sent
    listen: Listen
    echo: Reception


@record
class Refinement:
    """What the echoes of a subframe's data blocks said of the tracks they lit, in the array frame."""

    t_ns: int  # time tag of all of it
    track: Int[Array, " look"]
    value: Float[Array, "look 4"]  # uy, uz, range_m, velocity_mps
    covariance: Float[Array, "look 4 4"]  # infinite for an ambiguous range, and for speed from one block
    snr_db: Float[Array, " look"]  # integrated, after the combiner
    taken: Bool[Array, " look"]  # inside its track's gate, and updated it
    misfit: float  # power left by the fit over the noise's; 1: nothing else was heard


@record
class Tracks:
    """The twin's belief about movers: world-frame state ``x y z vx vy vz`` with covariance."""

    t_ns: int
    track: Int[Array, " track"]  # never reused
    state: Float[Array, "track 6"]
    covariance: Float[Array, "track 6 6"]
    user: Int[Array, " track"]  # bound user, or -1
    confirmed: Bool[Array, " track"]
    hits: Int[Array, " track"]
    misses: Int[Array, " track"]  # dwells in a row that lit the track and did not see it
    seen_ns: Int[Array, " track"]  # last detection
    looks: Int[Array, " track"] | None = None  # dwells that lit or saw the track since its birth; None: not counted
    strength_db: Float[Array, " track"] | None = (
        None  # echo SNR less the two-way beam gain it came through, running mean; None: not kept
    )
    born: int = 0  # tracks born so far: the next identity is at least this


@record
class ChannelEstimate:
    """The small scale: what is believed of each user's channel, low rank about the tracked direction."""

    t_ns: int
    user: Int[Array, " user"]
    direction: Float[Array, "user 3"]  # array frame, the direction beams are designed for
    direction_covariance: Float[Array, "user 2 2"]  # of (uy, uz)
    gain: Complex[Array, "user subcarrier"]  # along the steering vector of ``direction``
    gain_variance: Float[Array, "user subcarrier"]
    heard: Bool[Array, " user"]  # a pilot was above the noise at the last update
    # what pilots alone say, fused over time: never from tracks, so that binding may compare the two
    pilot_state: Float[Array, "user 4"] | None = None  # uy, uz and their rates (1/s)
    pilot_covariance: Float[Array, "user 4 4"] | None = None
    power: Float[Array, " user"] | None = None  # running mean of |gain|^2; 0: never heard
    # of an estimator of whole vectors, at the receive array's elements
    vector: Complex[Array, "user subcarrier element"] | None = None
    vector_error: Complex[Array, "user element element"] | None = None  # covariance of what is not known of ``vector``
    # mean of the pilots' normalised squared innovation over samples: 1 when directions and ageing are what they are believed to be
    surprise: Float[Array, " user"] | None = None


@record
class Belief:
    """All the control plane knows, published whole."""

    t_ns: int
    detections: Detections  # of the last sensing phase
    tracks: Tracks
    channel: ChannelEstimate
    predicted_bps: Float[Array, " user"]  # of ``channel.user``, over the subframe
    swaps: int  # bindings that changed from one track to another, so far
    rebindings: int  # users bound again after a loss, so far
    short_db: float | None = (
        None  # how far the beams just designed are below ``direct``'s, where the precoder compared them
    )
    refined: Refinement | None = None  # by the echoes of the data blocks of the subframe before


@record
class EchoObservation:
    """Seen at ``steer``: the echoes of this subframe's dwells, and how they were taken.

    With sensing fidelity ``bound`` the front end's samples are not simulated and ``detections`` stand in for them.
    """

    k: int
    t_ns: int  # start of the subframe
    spec: FrontendSpec
    numerology: Numerology
    plan: Plan
    user: Int[Array, " user"]  # users attached now: the network knows its subscribers
    drive: Drive | None  # what was sent: the known symbols
    listen: Listen | None
    echo: Reception | None
    detections: Detections | None
    transmit_beam: BeamReport  # the machine's last word on its beam memory
    receive_beam: BeamReport
    blocks: BlockEchoes | None = None  # heard since the last ``steer``, through the beams above


@record
class PilotObservation:
    """Seen at ``precode``: the pilots of this subframe's update blocks, y = W^H h sqrt(p) + n."""

    k: int
    t_ns: int
    spec: FrontendSpec
    numerology: Numerology
    plan: Plan
    update_ns: Int[Array, " update"]
    user: Int[Array, " user"]
    pilot: Complex[Array, "update user chain subcarrier"]
    noise_w: float
    transmit_beam: BeamReport
    receive_beam: BeamReport
