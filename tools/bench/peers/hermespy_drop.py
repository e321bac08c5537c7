"""HermesPy: one drop of a joint communication and sensing scenario: a base station, a terminal behind a tapped delay line, a target at 30 m."""

import time
from collections.abc import Callable
from typing import Any

DISTRIBUTION = "hermespy"
RANGE_M, SYMBOLS, PILOTS = 30.0, 240, 16


def ready() -> Callable[[], tuple[float, Any]]:
    import numpy as np
    from hermespy.channel import TDL, SingleTargetRadarChannel, TDLType
    from hermespy.core import dB
    from hermespy.jcas import MatchedFilterJcas
    from hermespy.modem import (
        ReceivingModem,
        RectangularWaveform,
        SingleCarrierCorrelationSynchronization,
        SingleCarrierLeastSquaresChannelEstimation,
        SingleCarrierZeroForcingChannelEqualization,
    )
    from hermespy.radar import MaxDetector
    from hermespy.simulation import N0, SimulationScenario, SpecificIsolation, StaticTrajectory

    def waveform() -> Any:
        return RectangularWaveform(
            modulation_order=4,
            num_preamble_symbols=PILOTS,
            num_data_symbols=SYMBOLS,
            pilot_rate=10,
            guard_interval=0.0,
        )

    scene = SimulationScenario(seed=1)
    station, terminal = (
        scene.new_device(carrier_frequency=100e9, bandwidth=1e8, oversampling_factor=4) for _ in range(2)
    )
    station.isolation = SpecificIsolation(dB(100))
    terminal.trajectory = StaticTrajectory.From_Translation(np.array([20.0, 0.0, 0.0]))
    sensing = MatchedFilterJcas(max_range=60, waveform=waveform())
    sensing.detector = MaxDetector()
    station.add_dsp(sensing)
    modem = ReceivingModem(waveform=waveform())
    modem.waveform.synchronization = SingleCarrierCorrelationSynchronization()
    modem.waveform.channel_estimation = SingleCarrierLeastSquaresChannelEstimation()
    modem.waveform.channel_equalization = SingleCarrierZeroForcingChannelEqualization()
    terminal.add_dsp(modem)
    scene.set_channel(station, station, SingleTargetRadarChannel(RANGE_M, 10.0, attenuate=False))
    scene.set_channel(station, terminal, TDL(TDLType.A))
    for device in (station, terminal):
        device.noise_level = N0(dB(-100))

    def drop() -> tuple[float, Any]:
        begun = time.process_time()
        done = scene.drop()
        spent = time.process_time() - begun
        cube = done.device_receptions[0].operator_receptions[0].cube
        power = np.abs(cube.data).sum(axis=(0, 1))
        sent = done.device_transmissions[0].operator_transmissions[0].bits
        heard = done.device_receptions[1].operator_receptions[0].bits
        return spent, {
            "range_m": float(cube.range_bins[np.argmax(power)]),
            "bits": len(heard),
            "wrong": int(np.sum(sent != heard)),
        }

    drop()  # compiles
    return drop
