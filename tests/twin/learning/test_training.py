"""Training: the same steps whether stopped or not, scores that rise, an end where none is left to gain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.errors import Misuse
from twin.learning.factored import Factored
from twin.learning.scenes import Recipe
from twin.learning.training import FactoredTask, Training, train

torch = pytest.importorskip("torch")

SMALL = Recipe(columns=4, rows=4, delay_lines=(2, 2), subcarriers=6, targets=(1, 2))
NETWORK = Factored(width=8, rounds=1, harmonics=2, profile=3, power_rounds=2, most_targets=2)
SHORT = Training(steps=6, batch=8, look=2, validation=16, rise=2, rate=1e-2)


def trained(folder, training=SHORT, resume=False, **change):
    task = FactoredTask(NETWORK, replace(SMALL, **change), training)
    return train(task, training, folder, resume)


def test_stopped_and_resumed_is_as_never_stopped(tmp_path):
    whole, scores = trained(tmp_path / "whole")

    class Stop(Exception):
        pass

    def stopping(step, loss, scores):
        if step == 4:
            raise Stop

    with pytest.raises(Stop):
        train(FactoredTask(NETWORK, SMALL, SHORT), SHORT, tmp_path / "parts", tell=stopping)
    again, scores_again = trained(tmp_path / "parts", resume=True)
    assert scores == scores_again
    for name in whole:
        np.testing.assert_array_equal(whole[name], again[name])
    curves = [
        [line.split(",")[::2] for line in (tmp_path / f / "curve.csv").read_text().split()] for f in ("whole", "parts")
    ]
    steps = [[row[0] for row in curve] for curve in curves]
    assert steps == [["step", "2", "4", "6"]] * 2
    assert (tmp_path / "whole" / "curve.png").stat().st_size > 1000


def test_scores_rise(tmp_path):
    looks = []
    training = Training(steps=40, batch=16, look=20, validation=64, rate=1e-2)
    task = FactoredTask(NETWORK, SMALL, training)
    before = task.score()["utility_db"]
    _, scores = train(task, training, tmp_path, tell=lambda step, loss, s: looks.append(s["utility_db"]))
    assert scores["utility_db"] == max(looks)
    assert scores["utility_db"] > before + 0.1


def test_it_ends_where_nothing_is_gained(tmp_path):
    training = replace(SHORT, steps=1000, look=1, rate=1e-9, rise=0, patience=3)
    task = FactoredTask(NETWORK, SMALL, training)
    scores = {"utility_db": 1.0}
    task.score = lambda: dict(scores)
    train(task, training, tmp_path)
    assert len((tmp_path / "curve.csv").read_text().split()) == 1 + 4


def test_folders_are_not_mixed_up(tmp_path):
    with pytest.raises(Misuse, match="no checkpoint"):
        trained(tmp_path / "none", resume=True)
    trained(tmp_path / "one")
    with pytest.raises(Misuse, match="--resume"):
        trained(tmp_path / "one")
    other = FactoredTask(replace(NETWORK, width=9), SMALL, SHORT)
    with pytest.raises(Misuse, match="another network"):
        train(other, SHORT, tmp_path / "one", resume=True)
    with pytest.raises(Misuse, match="most_targets"):
        trained(tmp_path / "two", targets=(1, 3))


def test_a_loss_that_is_no_number_is_said(tmp_path):
    training = replace(SHORT, rate=1e30, rise=0)
    with pytest.raises(Misuse, match=r"training\.rate"):
        train(FactoredTask(NETWORK, SMALL, training), training, tmp_path)
