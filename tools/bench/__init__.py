"""Benchmarks: never tests, always side by side. One thread, unless the environment says otherwise: a second one's idle turns would count as work."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
