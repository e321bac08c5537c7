"""The figure of a subframe shows the plan that was played, at its own times."""

from pathlib import Path

import numpy as np

from tools.figures.subframe import draw, played

ROOT = Path(__file__).parents[2]


def test_the_subframe_that_is_drawn_is_the_one_that_was_played():
    it = played(str(ROOT / "scenarios" / "smoke.yaml"), 4)
    assert it.sensing_ns == len(it.searches) * it.grid.frames_per_dwell * it.grid.frame_ns == 140_000
    assert it.sensing_blocks == 1
    # 0 .. 3 rows a half load one after the other: 50 us, 64 or 256 settings of 10 ns a row, 1 us
    assert it.sensing_ns + 50_000 < it.in_force_ns < it.sensing_ns + 65_000
    assert it.update_block[0] * it.grid.block_ns >= it.in_force_ns
    figure = draw(it)
    whole, close = figure.axes
    words = " ".join(text.get_text() for text in close.texts)
    assert f"in force {(it.in_force_ns - it.sensing_ns) / 1e3:.0f} µs" in words
    starts = [path.vertices[:, 0].min() for bars in whole.collections for path in bars.get_paths()]
    assert set(it.update_block * it.grid.block_ns / 1e3) <= set(np.round(starts, 9))
