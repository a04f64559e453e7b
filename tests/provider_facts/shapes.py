"""The shape of a JSON answer: its fields and their types, so that a simulation's answer is compared with a recorded one."""

from typing import Any


def shape_of(value: Any) -> Any:
    """Describe a value's shape: of an object its fields, of a list that of its first item, of all else its type."""
    if isinstance(value, dict):
        return {name: shape_of(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape_of(each) for each in value[:1]]
    return type(value).__name__


def unlike(simulated: Any, recorded: Any, where: str = "") -> list[str]:
    """Name the fields of a simulated answer that the recorded one lacks or has of another type; null matches any type."""
    if isinstance(simulated, dict) and isinstance(recorded, dict):
        unknown = [f"{where}{name} is unknown" for name in simulated if name not in recorded]
        return unknown + [
            text for name in simulated if name in recorded for text in unlike(simulated[name], recorded[name], f"{where}{name}.")
        ]
    if isinstance(simulated, list) and isinstance(recorded, list):
        return [text for each in simulated for text in unlike(each, recorded[0], where)] if recorded else []
    if simulated is None or recorded is None or shape_of(simulated) == shape_of(recorded):
        return []
    return [f"{where.rstrip('.')}: {shape_of(simulated)} for {shape_of(recorded)}"]


def lacking(simulated: Any, recorded: Any, where: str = "") -> list[str]:
    """Name the fields of a recorded answer that a simulated one does not have, at every depth."""
    if isinstance(simulated, dict) and isinstance(recorded, dict):
        missing = [f"{where}{name} is missing" for name in recorded if name not in simulated]
        return missing + [
            text for name in simulated if name in recorded for text in lacking(simulated[name], recorded[name], f"{where}{name}.")
        ]
    if isinstance(simulated, list) and isinstance(recorded, list) and recorded:
        return [text for each in simulated for text in lacking(each, recorded[0], where)]
    return []
