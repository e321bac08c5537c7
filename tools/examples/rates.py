"""A monitor: a line of bars every few subframes, each user's rate, and who set the plan.

python rates.py [tcp://127.0.0.1:5570]
"""

import sys

import numpy as np

from twin.client import connect

BARS, FULL_BPS = " ▁▂▃▄▅▆▇█", 40e9

kpi, names = None, {}
with connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5570", "bs0.kpi.", "bs0.control.") as twin:
    for message in twin:
        if message.kind == "start":
            names = {int(k): name for k, name in message.data["about"]["users"].items()}
        if message.topic == "bs0.kpi." and message.kind == "event":
            kpi = message.data
        if message.topic == "bs0.control." and message.kind == "event" and kpi is not None and kpi["k"] % 10 == 9:
            rates = np.nan_to_num(kpi["rate_bps"])
            line = "  ".join(
                f"{names[u]} {BARS[min(8, int(8.99 * r / FULL_BPS))]}{r * 1e-9:5.1f}"
                for u, r in zip(kpi["user"].tolist(), rates, strict=True)
            )
            print(f"t = {message.t_ns * 1e-9:5.3f} s  {line}  Gbit/s  plan: {message.data['plan']}", flush=True)
