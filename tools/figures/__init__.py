"""Figures of the documentation, drawn from scenarios of this repository and nothing else."""
