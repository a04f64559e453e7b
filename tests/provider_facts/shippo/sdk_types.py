"""Shippo's own library as the judge of every field: its types, walked over what is sent and what is simulated (shippo 3.9.0, MIT)."""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

NONE = type(None)


def unfit(value: Any, hint: Any, where: str = "") -> list[str]:
    """Name what a JSON value has that the library's type has not, what it lacks, and what is of another type, at every depth."""
    tried = [list(_unfit(value, option, where)) for option in options(hint)]
    if any(each == [] for each in tried):
        return []
    wrong = f"{where} = {value!r}"
    return next((each for each in tried if each != [wrong]), [wrong])


def options(hint: Any) -> Iterator[Any]:
    """Write out what a hint allows."""
    if get_origin(hint) in (Union, types.UnionType):
        for inner in get_args(hint):
            yield from options(inner)
    else:
        yield hint


def names_of(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Read the fields of one of the library's types by their names in JSON: the type of each, and whether it is always there."""
    hints = get_type_hints(kind)
    return {
        field.metadata["dataclasses_json"]["letter_case"](field.name): (hints[field.name], field.default is dataclasses.MISSING)
        for field in dataclasses.fields(kind)
    }


def _unfit(value: Any, option: Any, where: str) -> Iterator[str]:
    if get_origin(option) is list and isinstance(value, list):
        for item in value:
            yield from unfit(item, get_args(option)[0], f"{where}[]")
    elif dataclasses.is_dataclass(option) and isinstance(value, Mapping):
        yield from _unfit_fields(value, option, where)
    elif not _fits(value, option):
        yield f"{where} = {value!r}"


def _unfit_fields(value: Mapping[str, Any], kind: Any, where: str) -> Iterator[str]:
    fields = names_of(kind)
    yield from (f"{where}.{name} is missing" for name, (_, always) in fields.items() if always and name not in value)
    for name, inner in value.items():
        if name in fields:
            yield from unfit(inner, fields[name][0], f"{where}.{name}")
        else:
            yield f"{where}.{name} is unknown"


def _fits(value: Any, option: Any) -> bool:
    if option is datetime:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    if isinstance(option, type) and issubclass(option, Enum):
        return value in {member.value for member in option}
    return type(value) is option
