"""Settings: plain data changed key by key, and read into a model or refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rsw_rewards.errors import ConfigError, did_you_mean, reason_of

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A section of a configuration: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def change(content: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b`` in nested mappings and lists, in place.

    Raises:
        ConfigError: the key is empty, or a part of it leads through something that is no mapping or list.
    """
    if not key:
        raise ConfigError(f"there is no key for the value {value!r}; write key=value")
    *parents, last = key.split(".")
    place: Any = content
    for depth, part in enumerate(parents):
        if isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        else:
            place = _item(place, part, ".".join(parents[: depth + 1]))
    if isinstance(place, dict):
        place[last] = value
    else:
        _item(place, last, key)
        place[int(last)] = value


def _item(place: Any, part: str, key: str) -> Any:
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return place[int(part)]
    what = f"a list of {len(place)}" if isinstance(place, list) else f"the value {place!r}"
    raise ConfigError(f"the key {key}: {part!r} leads into {what}")


def merge(content: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Apply changes in place, key by key; a section that names another ``source`` or ``use`` is replaced, for its options are others."""
    for key, value in changes.items():
        known = content.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(known, dict)
            and all(value[name] == known.get(name) for name in ("source", "use") if name in value)
        ):
            merge(known, value)
        else:
            content[key] = value


def validated(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """``content`` as a ``model``. Raises :class:`ConfigError` naming ``where``, the key and what to do."""
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        problem = error.errors()[0]
        parts = [str(part) for part in problem["loc"]]
        key = ".".join(parts)
        if problem["type"] == "extra_forbidden":
            known = _keys(model, parts[:-1])
            raise ConfigError(f"{where}: unknown key {key!r}; {did_you_mean(parts[-1], known)}") from None
        if problem["type"] == "missing":
            raise ConfigError(f"{where}: the key {key!r} is missing") from None
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{reason_of(problem)}") from None


def _keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the section that ``path`` leads to, as far as it leads through models."""
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
