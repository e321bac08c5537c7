"""Training: Adam on a stream of random scenes, resumable at any step, with its curve as CSV and a picture."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np

from hal.check import Ge, Gt
from hal.errors import Misuse
from hal.record import Array, Float
from twin.learning.factored import Factored
from twin.learning.scenes import Lit, Recipe, worth

if TYPE_CHECKING:
    import torch

__all__ = ["VALIDATION", "FactoredTask", "Task", "Training", "plot", "train"]

VALIDATION = 2**31  # batch numbers from here on are never trained on


@dataclass(frozen=True)
class Training:
    """How long and how fast."""

    steps: Annotated[int, Ge(1)] = 2400
    batch: Annotated[int, Ge(1)] = 64  # scenes a step
    rate: Annotated[float, Gt(0)] = 3e-3  # Adam's, after a short rise and before a cosine's fall
    final: Annotated[float, Ge(0)] = 0.01  # of the rate, at the end; 1: constant
    rise: Annotated[int, Ge(0)] = 50  # steps
    clip: Annotated[float, Gt(0)] = 1.0  # of the gradient's norm
    seed: int = 1  # of scenes and of the first weights
    look: Annotated[int, Ge(1)] = 50  # steps between two looks at the validation scenes, each with a checkpoint
    validation: Annotated[int, Ge(1)] = 512  # scenes
    scenes: Annotated[int, Ge(0)] = 0  # of a set gone through epoch by epoch; 0: new ones every step
    patience: Annotated[int, Ge(0)] = 0  # looks without a better score before it ends; 0: none


class Task(Protocol):
    """What is trained: tensors by name, a loss for a step's number, and scores."""

    trained: dict[str, torch.Tensor]
    better: str  # the score that counts; more is better

    def state(self) -> dict[str, torch.Tensor]:
        """All that the network is, trained or not."""

    def loss(self, number: int) -> torch.Tensor:
        """Of the scenes of one step."""

    def score(self) -> dict[str, float]:
        """On the validation scenes."""


class FactoredTask:
    """The factored network on the direct utility: ``rate_weight R / R_comm - ln CRB``, averaged over scenes and trade-offs."""

    better = "utility_db"

    def __init__(
        self,
        network: Factored,
        recipe: Recipe,
        training: Training,
        device: str = "cpu",
        start: Mapping[str, Float[Array, ...]] | None = None,
    ) -> None:
        import torch

        self.network, self.recipe, self.training, self.device = network, recipe, training, device
        if recipe.targets[1] > network.most_targets:
            raise Misuse(
                f"recipe.targets = {recipe.targets}: the network takes {network.most_targets} (shape.most_targets); lower one or raise the other"
            )
        first = network.start(training.seed) if start is None else start
        self.trained = {
            name: torch.tensor(np.array(first[name]), dtype=torch.float32, device=device, requires_grad=True)
            for name in network.sizes
        }
        self._held: Lit | None = None

    def state(self) -> dict[str, torch.Tensor]:
        """The weights."""
        return self.trained

    def loss(self, number: int) -> torch.Tensor:
        """Minus the mean utility, trade-offs that look at the rate alone held down so that none drowns the rest."""
        lit = self._lit(number, self.training.batch)
        found = worth(lit, self.network, self.trained)
        loss: torch.Tensor = -(found.utility / (1 + lit.rate_weight / 4)).mean()
        return loss

    def score(self) -> dict[str, float]:
        """Mean utility in decibels of bound, rate and bound."""
        import torch

        if self._held is None:
            self._held = self._lit(VALIDATION, self.training.validation)
        with torch.no_grad():
            found = worth(self._held, self.network, self.trained)
            level = found.utility / (1 + self._held.rate_weight / 4)
            return {
                "utility_db": float(level.mean()) * 10 / np.log(10),
                "rate_bits": float(found.rate.mean()),
                "crb_db": float(torch.log10(found.crb).mean()) * 10,
            }

    def _lit(self, number: int, count: int) -> Lit:
        return Lit(self.recipe.draw(self.training.seed, number, count), self.recipe.aperture, self.device)


def train(
    task: Task,
    training: Training,
    folder: Path,
    resume: bool = False,
    tell: Callable[[int, float, Mapping[str, float]], None] = lambda step, loss, scores: None,
) -> tuple[dict[str, Float[Array, ...]], dict[str, float]]:
    """Weights at the best look and their scores.

    ``folder`` gets ``curve.csv``, ``curve.png`` and ``checkpoint.safetensors`` (weights, Adam's moments, the best so far; no pickle) at every look. A
    resumed training goes through the same steps as one never stopped.

    Raises Misuse where ``folder`` holds a checkpoint that is not resumed, or none that could be, and where the loss stops being a number.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    kept, curve = folder / "checkpoint.safetensors", folder / "curve.csv"
    if kept.exists() and not resume:
        raise Misuse(f"{folder}: holds a training already; go on with --resume, or name another folder")
    if resume and not kept.exists():
        raise Misuse(f"{folder}: has no checkpoint to resume; leave --resume out")
    names = list(task.trained)
    adam = torch.optim.Adam(task.trained.values(), lr=training.rate)
    step, best, stale, spent_s = 0, {task.better: -np.inf}, 0, 0.0
    best_state = {name: value.detach().clone() for name, value in task.state().items()}
    if resume:
        step, best, stale, spent_s = _resumed(kept, task, adam, names, best_state)
        _cut(curve, step)
    began, total = time.monotonic() - spent_s, 0.0
    while step < training.steps:
        for group in adam.param_groups:
            group["lr"] = training.rate * _pace(step, training)
        loss = task.loss(step)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(task.trained.values(), training.clip)
        if not bool(torch.isfinite(norm)):
            raise Misuse(
                f"training.rate = {training.rate}: the loss stopped being a number at step {step}; lower the rate"
            )
        adam.step()
        step, total = step + 1, total + float(loss.detach())
        if step % training.look and step < training.steps:
            continue
        scores, loss_mean = task.score(), total / (training.look if step % training.look == 0 else step % training.look)
        total = 0.0
        stale = stale + 1 if not scores[task.better] > best[task.better] else 0
        if not stale:
            best, best_state = scores, {name: value.detach().clone() for name, value in task.state().items()}
        seconds = time.monotonic() - began
        _noted(curve, {"step": step, "seconds": round(seconds, 1), "loss": loss_mean, **scores})
        _checkpoint(kept, task, adam, names, best_state, (step, best, stale, seconds))
        plot(curve, folder / "curve.png")
        tell(step, loss_mean, scores)
        if training.patience and stale >= training.patience:
            break
    return {name: value.cpu().numpy() for name, value in best_state.items()}, {k: float(v) for k, v in best.items()}


def plot(curve: Path, image: Path) -> None:
    """The curve of a training: a panel for the loss and one for each score, over steps."""
    from matplotlib.figure import Figure

    with curve.open(encoding="utf-8") as stream:
        found = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
    shown = [key for key in found[0] if key not in ("step", "seconds")]
    figure = Figure(figsize=(3.2 * len(shown), 2.8), layout="constrained")
    for axes, key in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True):
        axes.plot([row["step"] for row in found], [row[key] for row in found], lw=1.5)
        axes.set_title(key.replace("_db", ", dB").replace("_bits", ", bit").replace("_", " "), loc="left", fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(image, dpi=120)


def _pace(step: int, training: Training) -> float:
    fall = training.final + (1 - training.final) * 0.5 * (1 + np.cos(np.pi * step / training.steps))
    return float(fall * min(1.0, (step + 1) / max(training.rise, 1)))


def _noted(curve: Path, row: Mapping[str, float]) -> None:
    new = not curve.exists()
    with curve.open("a", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        if new:
            table.writerow(row)
        table.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row.values()])


def _cut(curve: Path, step: int) -> None:
    """Forget looks after ``step``: a training that was ended between its curve and its checkpoint writes them again."""
    head, *rows = curve.read_text(encoding="utf-8").splitlines()
    rows = [row for row in rows if int(row.partition(",")[0]) <= step]
    curve.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def _checkpoint(
    path: Path,
    task: Task,
    adam: torch.optim.Adam,
    names: list[str],
    best_state: Mapping[str, torch.Tensor],
    progress: tuple[int, Mapping[str, float], int, float],
) -> None:
    from safetensors.torch import save_file

    held = {f"now.{name}": value.detach().clone() for name, value in task.state().items()}
    held |= {f"best.{name}": value.clone() for name, value in best_state.items()}
    for name, parameter in zip(names, task.trained.values(), strict=True):
        for part, value in adam.state[parameter].items():
            held[f"adam.{name}.{part}"] = torch_copy(value)
    partial = path.with_suffix(".part")
    save_file(held, partial, metadata={"progress": json.dumps(progress)})
    partial.replace(path)


def torch_copy(value: Any) -> torch.Tensor:
    """A tensor of its own, as safetensors wants it."""
    import torch

    return torch.as_tensor(value).detach().clone().contiguous()


def _resumed(
    path: Path, task: Task, adam: torch.optim.Adam, names: list[str], best_state: dict[str, torch.Tensor]
) -> tuple[int, dict[str, float], int, float]:
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt") as kept:
        progress = json.loads(kept.metadata()["progress"])
        with torch.no_grad():
            for name, value in task.state().items():
                if f"now.{name}" not in kept.keys() or kept.get_tensor(f"now.{name}").shape != value.shape:
                    raise Misuse(
                        f"{path}: is of another network ({name} differs); resume with the configuration it began with"
                    )
                value.copy_(kept.get_tensor(f"now.{name}"))
                best_state[name] = kept.get_tensor(f"best.{name}").to(value.device)
        for name, parameter in zip(names, task.trained.values(), strict=True):
            adam.state[parameter] = {
                part: kept.get_tensor(f"adam.{name}.{part}")
                if part == "step"
                else kept.get_tensor(f"adam.{name}.{part}").to(parameter.device)
                for part in ("step", "exp_avg", "exp_avg_sq")
            }
    step, best, stale, seconds = progress
    return int(step), best, int(stale), float(seconds)
