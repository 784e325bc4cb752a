"""Models of YAML documents that refuse a misspelt key and name the nearest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from defectbench.errors import nearest

Whole = Annotated[int, Field(strict=True)]
"""A whole number: not true, not 2.0, not "2"."""

Number = Annotated[float, Field(strict=True)]
"""A finite number: not true, not "2"."""

_Value = TypeVar("_Value")


class StrictModel(BaseModel):
    """A frozen model without unknown keys; its numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, value: Any) -> Any:
        """Turn an empty YAML value into the defaults, and refuse keys that no field has."""
        if value is None:
            return {}
        if isinstance(value, Mapping):
            for key in value:
                if key not in cls.model_fields:
                    refuse(f"unknown key {key!r}; {nearest(str(key), cls.model_fields)}", str(key))
        return value


def refuse(message: str, *path: str | int) -> None:
    """End a validation with ``message``, which belongs to the key at ``path`` below the value validated.

    Raises:
        PydanticCustomError: always.
    """
    # The message may hold braces, which pydantic would read as a template: it goes in as a value.
    raise PydanticCustomError("refused", "{message}", {"message": message, "path": list(path)})


def distinct(values: tuple[_Value, ...], what: str) -> tuple[_Value, ...]:
    """Return the values, or refuse one that stands twice."""
    for position, value in enumerate(values):
        if value in values[:position]:
            refuse(f"{what} {value!r} stands twice", position)
    return values
