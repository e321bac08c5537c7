"""GNU Radio's own IIO source on the twin's receiver: a flow graph that ends in a spectrum, with nothing of the twin in it.

Usage:  twin serve iio scenarios/phaser.yaml &
        python tools/examples/iio_flowgraph.py        (with the Python that has GNU Radio: Debian's package gnuradio)
"""

import sys

import numpy as np
from gnuradio import blocks, gr, iio

__all__ = ["spectrum"]

SAMPLES = 4096


def spectrum(uri: str, buffers: int = 16) -> np.ndarray:
    """Power (dB of full scale) of each line of the receiver's first chain, the mean over buffers."""
    graph = gr.top_block()
    channels = ["voltage0", "voltage1"]
    source = iio.device_source(uri, "twin-receiver", channels, "twin-receiver", [], SAMPLES, 0)
    both, pairs = blocks.interleave(gr.sizeof_short), blocks.interleaved_short_to_complex(False, False, 32768.0)
    head, sink = blocks.head(gr.sizeof_gr_complex, buffers * SAMPLES), blocks.vector_sink_c()
    graph.connect((source, 0), (both, 0))
    graph.connect((source, 1), (both, 1))
    graph.connect(both, pairs, head, sink)
    graph.run()
    window = np.blackman(SAMPLES)
    frames = np.array(sink.data()).reshape(buffers, SAMPLES) * window / window.sum()
    return 10 * np.log10(np.mean(np.abs(np.fft.fftshift(np.fft.fft(frames), axes=1)) ** 2, axis=0) + 1e-15)


if __name__ == "__main__":
    found_db = spectrum(sys.argv[1] if len(sys.argv) > 1 else "ip:127.0.0.1")
    line = int(np.argmax(found_db))
    share = (line - SAMPLES // 2) / SAMPLES
    print(
        f"{len(found_db)} lines; the strongest at {share:+.6f} of the sampling rate, {found_db[line]:.1f} dB of full scale"
    )
    print(f"the median line has {np.median(found_db):.1f} dB")
