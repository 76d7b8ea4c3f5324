"""What every part of a suite's schema is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from zoo.registry import nearest


class Strict(BaseModel):
    """A mapping in which an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            fields = ", ".join(f"{name}: …" for name in cls.model_fields)
            raise PydanticCustomError("mapping", "expected a mapping such as {fields}", {"fields": f"{{{fields}}}"})
        for key in data:
            if key not in cls.model_fields:
                message = f"unknown key {key!r}{nearest(key, cls.model_fields)}"
                raise PydanticCustomError("unknown_key", "{message}", {"message": message, "key": key})
        return data
