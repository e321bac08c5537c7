"""Sweeps: one scenario over grids, lists, random draws and seeds, on every core or a cluster, into one table."""

from twin.sweep.cases import Case, Sweep, read_sweep
from twin.sweep.conduct import Swept, sweep

__all__ = ["Case", "Sweep", "Swept", "read_sweep", "sweep"]
