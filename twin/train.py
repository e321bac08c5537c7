"""``twin train``: learn a precoder's weights from random scenes, and write them with their card."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hal.errors import Misuse
from hal.frontend import HalfSpec
from hal.record import Array, Float
from twin.assembly import build
from twin.document import read
from twin.learning.cards import Card, load, save
from twin.learning.factored import Factored
from twin.learning.published import Published, References
from twin.learning.scenes import Batch, Recipe
from twin.learning.training import VALIDATION, FactoredTask, Task, Training, train
from twin.precoding import Problem
from twin.precoding._scene import delay_grid
from twin.precoding._search import Search
from twin.precoding.delay_phase import waterfill
from twin.precoding.direct import Direct

__all__ = ["Job", "arguments", "job", "problem", "references", "run", "task"]

_RECIPES = Path(__file__).parent / "learning" / "recipes"


@dataclass(frozen=True)
class Job:
    """One training, as its file says it."""

    network: Factored | Published
    recipe: Recipe = field(default_factory=Recipe)
    training: Training = field(default_factory=Training)
    start: str | None = None  # weights to go on from (a shipped name or a file): fine-tuning, to another array too


def job(name: str, sets: Mapping[str, Any]) -> Job:
    """The training of a shipped name (``paper``, ``street``, ``published``, ``published_small``) or of a file.

    Raises ScenarioError for a file that is wrong, every line of it at once, and Misuse for a name that is neither.
    """
    path = Path(name)
    if not path.suffix:
        path = _RECIPES / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in _RECIPES.glob("*.yaml")))
            raise Misuse(f"{name!r}: no training of that name ships ({known}); a file's name ends in .yaml")
    document = read(path, sets)
    made = build(Job, document.value, (), document)
    document.verdict()
    assert isinstance(made, Job)
    return made


def references(recipe: Recipe, batch: Batch, tell: Callable[[int, int], None] = lambda done, total: None) -> References:
    """What loss (22) divides by: 1 / Cor* of SA-Opt's search, R_max of matched beams and water-filling, CRB_min of ``direct`` with no rate."""
    from twin.precoding._scene import scene

    found = []
    for i in range(len(batch.power_w)):
        row = scene(problem(recipe, batch, i), 0)
        assert row is not None
        grid = (2 * row.array.columns, 2 * row.array.rows)
        if row.lines:
            from twin.precoding._search import delay_divergence

            level_s = delay_grid(row.network)
            start_s = level_s[np.argmin(np.abs(row.steered()[0][:, None] - level_s), axis=1)]
            least = delay_divergence(row, Search(row, grid).run(start_s, level_s, 8)[0], grid)
        else:
            least = 1.0
        matched = np.abs(row.user_gain) ** 2 * len(row.line) / row.noise_w
        power_w = waterfill(matched[None], row.power_w)[0]
        alone = Direct(rate_weight=0.0, starts=1, iterations=60, rounds=0).design(problem(recipe, batch, i))
        response = row.response(alone.delay_s[0].reshape(-1)[: row.lines], alone.phase_rad[0, 0])
        found.append((least, float(np.log2(1 + matched * power_w).sum()), row.crb(response, alone.power_w[0])))
        if i % 16 == 15:
            tell(i + 1, len(batch.power_w))
    return References(*(np.array(column) for column in zip(*found, strict=True)))


def problem(recipe: Recipe, batch: Batch, i: int) -> Problem:
    """Scene ``i`` of a batch as precoders are asked it."""
    return Problem(
        half=HalfSpec(array=recipe.aperture.array, network=recipe.network, memory_slots=1),
        frequency_hz=recipe.aperture.frequency_hz,
        user_direction=batch.user[i : i + 1],
        user_gain=np.sqrt(batch.user_power[i : i + 1]).astype(np.complex128),
        target_direction=batch.target[i : i + 1],
        target_gain=batch.gain[i : i + 1],
        power_w=float(batch.power_w[i]),
        noise_w=1.0,
    )


def arguments(parser: ArgumentParser) -> None:
    """What ``twin train`` takes."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.description = (
        "Train a precoding network on random scenes and write NAME.safetensors and its card NAME.json. Every step's scenes follow from the seed and\n"
        "the step's number: on a CPU the same command makes the same weights, stopped and resumed or not."
    )
    parser.epilog = (
        "Examples:  twin train paper                          make the shipped weights again\n"
        "           twin train mine.yaml --device cuda         a recipe of your own\n"
        "           twin train paper --set recipe.columns=8 --set recipe.rows=8 --set 'recipe.delay_lines=[4, 4]' --set start=paper --set training.steps=500\n"
        "                                                      fine-tune to another array\n"
        "Then:      control: { precoding: { kind: csp_net, weights: runs/train/mine/mine.safetensors } }"
    )
    parser.add_argument("job", help="paper, street, published, published_small, or a file of the same form (.yaml)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="sets",
        help="replace one value first; may be given again",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where weights, curve and checkpoint go; default: runs/train/NAME"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in DIR")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--json", action="store_true", help="print the card as JSON, and nothing else")


def run(given: Namespace) -> int:
    """``twin train``."""
    from twin.commands import pair

    sets = dict(pair(text) for text in given.sets)
    work, name = job(given.job, sets), Path(given.job).stem
    folder = given.out or Path("runs/train") / name
    _able(given.device)
    moves = sys.stderr.isatty() and not given.json

    def tell(step: int, loss: float, scores: Mapping[str, float]) -> None:
        if not given.json:
            said = "  ".join(f"{key} {value:.4g}" for key, value in scores.items())
            print(f"step {step}/{work.training.steps}  loss {loss:.4f}  {said}", file=sys.stderr, flush=True)

    def counted(done: int, total: int) -> None:
        if moves:
            print(f"\rreferences {done}/{total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)

    weights, scores = train(task(work, given.device, counted), work.training, folder, given.resume, tell)
    words = ["twin train", given.job, *(f"--set '{text}'" for text in given.sets)]
    kind = "factored" if isinstance(work.network, Factored) else "published"
    start = {} if work.start is None else {"start": work.start}
    card = Card(
        kind, asdict(work.network), asdict(work.recipe), {**asdict(work.training), **start}, " ".join(words), scores
    )
    path = folder / f"{name}.safetensors"
    card = save(path, card, weights)
    if given.json:
        json.dump(asdict(card), sys.stdout, indent=1)
        print()
    else:
        print(f"{path}: {card.parameters} parameters for {card.array}; curve in {folder / 'curve.png'}")
    return 0


def task(work: Job, device: str, tell: Callable[[int, int], None]) -> Task:
    """The network and its scenes, ready to train. Raises Misuse for a start of another kind or shape."""
    kind = "factored" if isinstance(work.network, Factored) else "published"
    start: dict[str, Float[Array, ...]] | None = None
    if work.start is not None:
        card, start = load(work.start)
        same = card.shape == json.loads(json.dumps(asdict(work.network)))
        if (
            card.network != kind
            or not same
            or (kind == "published" and card.array != Card(kind, {}, asdict(work.recipe), {}).array)
        ):
            raise Misuse(
                f"start = {work.start!r}: is a {card.network} network of shape {dict(card.shape)} for {card.array}; begin with one of the same shape"
            )
    if isinstance(work.network, Factored):
        return FactoredTask(work.network, work.recipe, work.training, device, start)
    from twin.learning.published import PublishedTask

    if not work.training.scenes >= work.training.batch:
        raise Misuse(
            f"training.scenes = {work.training.scenes}: the published network needs a set of scenes, at least a batch of them; write 2048"
        )
    sizes = ((0, work.training.scenes), (VALIDATION, work.training.validation))
    batches = [work.recipe.draw(work.training.seed, number, count) for number, count in sizes]
    train_set, held = ((batch, references(work.recipe, batch, tell)) for batch in batches)
    return PublishedTask(work.network, work.recipe, work.training, (train_set, held), device, start)


def _able(device: str) -> None:
    try:
        import torch
    except ImportError:
        raise Misuse("twin train needs torch; pip install 'isac-twin[learn]'") from None
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Misuse(
            f"--device {device}: {str(error).partition(chr(10))[0]}; leave it out to train on the CPU"
        ) from None
    torch.set_num_threads(1)  # sums keep their order, so the same command makes the same weights
