"""Figures of the papers, each made and judged by a small file of its own."""
