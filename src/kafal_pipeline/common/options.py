"""Wraps pydantic, which checks the options that users write; no other algorithm module imports it.

A bare torch machine, such as a lent GPU, has no pydantic. There options are taken as they are, unchecked: whoever
runs the algorithms without the project's own configuration passes them from code. What converts an option
(`BeforeValidator`) works there too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

__all__ = [
    "LARGEST_NUMBER",
    "LARGEST_WHOLE",
    "BeforeValidator",
    "Field",
    "InvalidOptions",
    "JsonValue",
    "as_arguments",
    "as_instance",
]

LARGEST_WHOLE = 10**9
"""Bound of whole numbers that have none of their own: each fits the 32 bits of whatever library it is given to."""

LARGEST_NUMBER = 1e30
"""Bound of the size of other numbers that have none of their own: float32 holds each, and its products with data."""


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


def has_bound(annotation: Any) -> bool:
    """Tell whether an annotation, or a part of it, says how large a number may be.

    Examples
    --------
    >>> from typing import Annotated
    >>> has_bound(Annotated[int, Field(ge=0, le=2**40)] | None), has_bound(Annotated[int, Field(ge=0)])
    (True, False)
    """
    bounds = [bound for item in getattr(annotation, "__metadata__", ()) for bound in getattr(item, "metadata", [item])]
    return any(hasattr(bound, "le") or hasattr(bound, "lt") for bound in bounds) or any(
        map(has_bound, get_args(annotation))
    )


def beyond_all_use(value: Any) -> str | None:
    """Return what is wrong with a number that is too large for any purpose, or for a list that holds one.

    Examples
    --------
    >>> beyond_all_use(10**10), beyond_all_use([1.0, -1e31])
    ('input should be less than or equal to 1000000000', 'input should be between -1e+30 and 1e+30')
    >>> beyond_all_use([1, 2.5, True, "x"])
    """
    if isinstance(value, list | tuple):
        return next(filter(None, map(beyond_all_use, value)), None)
    if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
        return f"input should be {'less than or equal to ' if value > 0 else 'at least -'}{LARGEST_WHOLE}"
    if isinstance(value, float) and abs(value) > LARGEST_NUMBER:
        return f"input should be between -{LARGEST_NUMBER:g} and {LARGEST_NUMBER:g}"
    return None


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
                instance = TypeAdapter(cls).validate_python(values)
            except ValidationError as error:
                raise _invalid(error) from None
            _check_size({key: getattr(instance, key, None) for key in values}, get_type_hints(cls, include_extras=True))
            return instance

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
            found = {key: getattr(checked, key) for key in values}
            _check_size(found, {key: annotation for key, (annotation, _) in annotations.items()})
            return found

        def _check_size(values, annotations):
            """Refuse numbers beyond all use, where the author of an option gave it no bound."""
            beyond = {
                key: beyond_all_use(value) for key, value in values.items() if not has_bound(annotations.get(key))
            }
            problems = [((key,), values[key], sentence) for key, sentence in beyond.items() if sentence]
            if problems:
                raise InvalidOptions(problems)

        def _invalid(error):
            return InvalidOptions([(item["loc"], item["input"], item["msg"]) for item in error.errors()])
