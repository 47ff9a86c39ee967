"""The one place where the algorithms meet pydantic, which checks the options that users write.

A bare torch machine, such as a lent GPU, has no pydantic. There options are taken as they are, unchecked: whoever
runs the algorithms without the project's own configuration passes them from code. What converts an option
(`BeforeValidator`) works there too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

__all__ = ["BeforeValidator", "Field", "InvalidOptions", "JsonValue", "as_arguments", "as_instance"]


class InvalidOptions(Exception):
    """Options that are not allowed; `problems` holds ``(location, value found, what is wrong)`` each."""

    def __init__(self, problems: list[tuple[tuple[int | str, ...], Any, str]]) -> None:
        self.problems = problems
        super().__init__(problems)


class _Converter:
    """What stands for `BeforeValidator` where pydantic is absent."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function


def unchecked_instance(cls: Any, values: Mapping[str, Any]) -> Any:
    """Return ``cls(**values)``, each value converted as its annotation says, and nothing checked."""
    hints = get_type_hints(cls, include_extras=True)
    return cls(**{key: _converted(value, hints.get(key)) for key, value in values.items()})


def unchecked_arguments(annotations: Mapping[str, tuple[Any, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` as they are."""
    return dict(values)


def _converted(value: Any, annotation: Any) -> Any:
    """Apply the converter of an annotation, or of the first member of a union that has one; None stays None."""
    converters = [item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, _Converter)]
    if converters:
        return converters[0].function(value)
    if value is not None and not hasattr(annotation, "__metadata__"):
        for member in get_args(annotation):
            if any(isinstance(item, _Converter) for item in getattr(member, "__metadata__", ())):
                return _converted(value, member)
    return value


if TYPE_CHECKING:
    from pydantic import BeforeValidator, Field, JsonValue

    as_instance, as_arguments = unchecked_instance, unchecked_arguments
else:
    try:
        from pydantic import (
            BeforeValidator,
            ConfigDict,
            Field,
            JsonValue,
            TypeAdapter,
            ValidationError,
            create_model,
        )
    except ModuleNotFoundError:
        BeforeValidator, JsonValue = _Converter, Any

        def Field(**bounds):  # noqa: N802 - pydantic's name
            """Stand for bounds that nobody checks."""
            return None

        as_instance, as_arguments = unchecked_instance, unchecked_arguments
    else:

        def as_instance(cls, values):
            """Return an instance of a dataclass with `values` for its fields; InvalidOptions if one is not allowed."""
            try:
                return TypeAdapter(cls).validate_python(values)
            except ValidationError as error:
                raise _invalid(error) from None

        def as_arguments(annotations, values):
            """Return `values` as their annotations want them; InvalidOptions if one is missing or not allowed.

            Parameters
            ----------
            annotations
                An annotation and a default (``...``: there is none) for each name.
            values
                What was given.
            """
            options = ConfigDict(arbitrary_types_allowed=True)
            try:
                checked = create_model("Options", __config__=options, **annotations)(**values)
            except ValidationError as error:
                raise _invalid(error) from None
            return {key: getattr(checked, key) for key in values}

        def _invalid(error):
            return InvalidOptions([(item["loc"], item["input"], item["msg"]) for item in error.errors()])
