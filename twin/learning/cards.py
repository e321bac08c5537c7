"""Trained weights on disk: a safetensors file and beside it a card, in JSON, of what they are, where they come from and what they score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Float

__all__ = ["Card", "front_end", "load", "save", "shipped"]

_HERE = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Card:
    """What a file of weights is."""

    network: str  # "factored" or "published"
    shape: Mapping[str, Any]  # the network's fields
    recipe: Mapping[str, Any]  # where its scenes came from
    training: Mapping[str, Any]  # steps, batch, rate, seed
    command: str = ""  # what makes the file again
    scores: Mapping[str, float] = field(default_factory=dict)  # on the validation scenes
    parameters: int = 0
    sha256: str = ""  # of the weights' file

    @property
    def array(self) -> str:
        """The array and front end that the weights were trained for, in words."""
        names = ("columns", "rows", "delay_lines", "carrier_hz", "bandwidth_hz")
        return front_end(*(self.recipe[name] for name in names))


def front_end(
    columns: int, rows: int, delay_lines: Sequence[int] | None, carrier_hz: float, bandwidth_hz: float
) -> str:
    """A planar array and its delay lines in the words of ``Card.array``."""
    lines = "no delay lines" if delay_lines is None else "{} x {} delay lines".format(*delay_lines)
    return f"{columns} x {rows} elements, {lines}, {carrier_hz / 1e9:g} GHz, {bandwidth_hz / 1e9:g} GHz wide"


def shipped() -> tuple[str, ...]:
    """Names of the weights that come with the package."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.json")))


def save(path: Path, card: Card, weights: Mapping[str, Float[Array, ...]]) -> Card:
    """Write ``path`` (safetensors) and its card, ``path`` with ``.json``; returns the card with what only the file tells."""
    from safetensors.numpy import save as packed

    data = packed({name: np.ascontiguousarray(value, np.float32) for name, value in sorted(weights.items())})
    count = int(sum(np.size(value) for value in weights.values()))
    whole = Card(**{**vars(card), "sha256": hashlib.sha256(data).hexdigest(), "parameters": count})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(asdict(whole), indent=1) + "\n", encoding="utf-8")
    return whole


@lru_cache(maxsize=8)
def load(name: str) -> tuple[Card, dict[str, Float[Array, ...]]]:
    """Card and weights of a shipped name, or of a file ``*.safetensors`` with its card beside it.

    Raises Misuse for a name that does not ship, a missing half, a card that is no card, and a file whose hash is not the card's.
    """
    path = Path(name) if name.endswith(".safetensors") else _HERE / f"{name}.safetensors"
    if not path.is_file():
        raise Misuse(
            f"weights = {name!r}: no such file; shipped are {', '.join(shipped()) or 'none'}, and `twin train` writes NAME.safetensors"
        )
    beside = path.with_suffix(".json")
    try:
        card = Card(**json.loads(beside.read_text(encoding="utf-8")))
        parts = (card.shape, card.recipe, card.training, card.scores)
        if not (all(isinstance(part, dict) for part in parts) and isinstance(card.network, str) and card.array):
            raise TypeError("its entries are of other kinds")
    except FileNotFoundError:
        raise Misuse(f"weights = {name!r}: its card {beside.name} is missing; keep both files together") from None
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise Misuse(
            f"weights = {name!r}: {beside.name} is not a card ({error}); write both again with `twin train`"
        ) from None
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise Misuse(
            f"weights = {name!r}: {path.name} is not the file its card describes (SHA-256 differs): damaged or exchanged; "
            "copy both files again or make them with the card's command"
        )
    try:
        from safetensors.numpy import load as unpacked
    except ImportError:
        raise Misuse("weights: reading them needs the package safetensors; pip install safetensors") from None
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused by who uses it
            found = {key: value.astype(np.float64) for key, value in unpacked(data).items()}
    except Exception as error:  # what is wrong with bytes is said in several packages' own errors
        raise Misuse(f"weights = {name!r}: {path.name} holds no weights: {type(error).__name__}: {error}") from None
    return card, found
