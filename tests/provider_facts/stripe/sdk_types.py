"""Stripe's own library as the judge of every field: its types, walked beside what is sent, read and simulated (stripe-python, MIT)."""

import importlib
import types
from collections.abc import Iterator, Mapping
from typing import Any, ForwardRef, Literal, NotRequired, Required, Union, get_args, get_origin

import stripe
import typing_extensions
from stripe import params

MAYBE = (NotRequired, typing_extensions.NotRequired, Required, typing_extensions.Required)
NONE = type(None)


def unfit_form(fields: Mapping[str, Any], kind: type, where: str = "") -> list[str]:
    """Name what a form has that the library's parameters have not, what it lacks, and what is not taken; forms are all text."""
    required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
    return [f"{where}{name} is missing" for name in required if name not in fields] + _unfit(fields, kind, where, of_form=True)


def unfit_object(value: Mapping[str, Any], kind: type) -> list[str]:
    """Name what a JSON object has that the library's object has not, and what is of another type, at every depth."""
    return _unfit(value, kind, "", of_form=False)


def lacking(value: Mapping[str, Any], kind: type) -> set[str]:
    """Name the fields that the library never finds null and that are not there."""
    known = {name for name in kind.__annotations__ if not name.startswith("_")} - {"OBJECT_NAME", "deleted"}
    return {name for name in known if not may_be_null(kind, name)} - set(value)


def may_be_null(kind: type, name: str) -> bool:
    """Tell whether a field of the library's object may be null or left out."""
    return NONE in list(options(kind.__annotations__[name], kind))


def options(hint: Any, kind: type) -> Iterator[Any]:
    """Spell out what a hint allows; names are resolved where the library writes them as text."""
    hint = hint.__forward_arg__ if isinstance(hint, ForwardRef) else hint
    hint = eval(hint, {}, Names(kind)) if isinstance(hint, str) else hint
    origin = get_origin(hint)
    if origin in (*MAYBE, Union, types.UnionType):
        for inner in get_args(hint):
            yield from options(inner, kind)
    else:
        yield hint


class Names(dict[str, Any]):
    """What a name in the library's text stands for: something of its class, its module, an object or parameters."""

    def __init__(self, kind: type) -> None:
        super().__init__({**vars(importlib.import_module(kind.__module__)), **vars(kind)})

    def __missing__(self, name: str) -> Any:
        return getattr(stripe, name, None) or getattr(params, name, Elsewhere)


class Elsewhere:
    """What the library names in text alone, for type checkers; nothing is of this type."""

    __annotations__: dict[str, Any] = {}


def _unfit(fields: Mapping[str, Any], kind: type, where: str, *, of_form: bool) -> list[str]:
    found: list[str] = []
    for name, value in fields.items():
        if name in kind.__annotations__:
            found += _beside(value, kind.__annotations__[name], kind, f"{where}{name}", of_form=of_form)
        elif name != "object":
            found.append(f"{where}{name} is unknown")
    return found


def _beside(value: Any, hint: Any, kind: type, where: str, *, of_form: bool) -> list[str]:
    """Compare a value with what a hint allows; when nothing fits, say what is wrong with the option that comes nearest."""
    tried = [_one(value, option, kind, where, of_form=of_form) for option in options(hint, kind)]
    if any(each == [] for each in tried):
        return []
    deeper = [each for each in tried if each != [f"{where} = {value!r}"]]
    return deeper[0] if deeper else [f"{where} = {value!r}"]


def _one(value: Any, option: Any, kind: type, where: str, *, of_form: bool) -> list[str]:
    wrong = [f"{where} = {value!r}"]
    origin = get_origin(option)
    if origin is Literal:
        return [] if value in get_args(option) else wrong
    if option in (str, int, bool, float, NONE):
        return [] if (_reads_as if of_form else _is)(value, option) else wrong
    if origin in (list, stripe.ListObject):
        # A form's list comes as a mapping of places to values.
        items = value.get("data") if origin is stripe.ListObject else list(value.values()) if of_form else value
        return [each for item in items for each in _beside(item, get_args(option)[0], kind, where, of_form=of_form)] if items else []
    if not isinstance(value, Mapping):
        return wrong
    if origin is not None:
        of_anything = get_args(option)[-1] is Any
        return [] if of_anything or all(isinstance(each, str) for each in value.values()) else wrong
    return (unfit_form if of_form else unfit_nested)(value, option, f"{where}.")


def unfit_nested(value: Mapping[str, Any], kind: type, where: str) -> list[str]:
    """Compare an object within an object."""
    return _unfit(value, kind, where, of_form=False)


def _is(value: Any, kind: type) -> bool:
    return type(value) is kind or (kind is float and type(value) is int)


def _reads_as(value: Any, kind: type) -> bool:
    if not isinstance(value, str):
        return False
    if kind is bool:
        return value in ("true", "false")
    return kind is str or (kind is int and value.isdigit())
