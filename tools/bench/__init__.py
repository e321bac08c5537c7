"""Benchmarks: never tests. Run ``make bench``; absolute times belong to the machine that printed them."""
