"""``@record``: frozen data that crosses a boundary, arrays read-only, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:
    Array = np.ndarray

__all__ = ["Array", "Bool", "Complex", "Float", "Int", "record"]

T = TypeVar("T")
PLAIN = ("bool", "float", "int", "str")  # annotations of fields that hold no array


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=False)
def record(cls: type[T]) -> type[T]:
    """A frozen, slotted, keyword-only dataclass whose NumPy arrays are read-only views.

    Equality is identity, since arrays have no truth value; compare ``hal.wire.encode`` of both for equality of content.
    """

    def _freeze(self: Any) -> None:
        for name in names:
            value = getattr(self, name)
            if isinstance(value, ndarray) and value.flags.writeable:
                view = value.view()
                view.flags.writeable = False
                write(self, name, view)

    cls.__post_init__ = _freeze  # type: ignore[attr-defined]
    made = dataclass(frozen=True, slots=True, kw_only=True, eq=False)(cls)
    names = [f.name for f in fields(made) if f.type not in PLAIN]  # type: ignore[arg-type]
    ndarray, write = np.ndarray, object.__setattr__
    return made
