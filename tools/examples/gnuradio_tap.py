"""Raw samples of a running twin in a GNU Radio flow graph, without a screen: the power of each frame, and its strongest delay.

Run it with the Python that GNU Radio belongs to; nothing of the twin is needed:

    twin run scenarios/street.yaml --pace 1 --state tcp://127.0.0.1:5570 --set bus.iq=tcp://127.0.0.1:5580 &
    python3 tools/examples/gnuradio_tap.py tcp://127.0.0.1:5580 bs0.echo.0. 65536
"""

import sys

import numpy as np
from gnuradio import blocks, gr, zeromq

endpoint, key, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

graph = gr.top_block("twin")
# item size, vector length, address, time-out in ms, no tags, default high-water mark, and the first part of the message
source = zeromq.sub_source(gr.sizeof_gr_complex, 1, endpoint, 100, False, -1, key)
head, sink = blocks.head(gr.sizeof_gr_complex, count), blocks.vector_sink_c()
graph.connect(source, head, sink)
graph.run()

samples = np.array(sink.data(), dtype=np.complex64)
power = np.mean(np.abs(samples) ** 2)
print(f"{len(samples)} samples, mean power {10 * np.log10(power / 1e-3):.2f} dBm, first {samples[0]:.6g}")
