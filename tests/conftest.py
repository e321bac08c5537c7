"""What all tests share: one thread a library, and no hypothesis deadlines, since a kernel's first call compiles it."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from hypothesis import settings  # noqa: E402

settings.register_profile("twin", deadline=None)
settings.load_profile("twin")
