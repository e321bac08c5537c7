"""The machine: what an array and its chains are, what they take, what they give back.

Nothing here knows about worlds, clocks or algorithms. Conventions: ``docs/conventions.md``.
"""
