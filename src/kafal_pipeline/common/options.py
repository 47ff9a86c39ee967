"""Checks the options of a strategy, a loss or a network, which users write, against the annotations of its author."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, ConfigDict, ValidationError, create_model
from pydantic_core import PydanticCustomError

from kafal_pipeline.common.errors import UserError, did_you_mean

# Bounds of numbers that have none of their own: any library's 32 bits hold them, float32 also their products with data.
LARGEST_WHOLE, LARGEST_NUMBER = 10**9, 1e30


def check_options(
    kind: str, name: str, annotations: Mapping[str, tuple[Any, Any]], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `values`, as the user wrote them, as their annotations want them.

    `kind`, `name`: for messages: the parameter's key, and what has these options. `annotations`: the annotation of each
    option, and its default: ``...`` where it has none. Raises `UserError` if an option is unknown or missing, or its
    value is not allowed.
    """
    for key in values:
        if key not in annotations:
            hint = did_you_mean(key, annotations) if annotations else f"{name} has no options."
            raise UserError(f"{kind}.{key}: unknown option. {hint}")
    fields: dict[str, Any] = {
        key: (_bounded(annotation), default)
        for key, (annotation, default) in annotations.items()
        if key in values or default is ...
    }
    try:
        checked = create_model("Options", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)(**values)
    except ValidationError as error:
        raise UserError("; ".join(_explained(kind, **problem) for problem in error.errors())) from None
    return {key: getattr(checked, key) for key in values}


def _explained(kind: str, *, loc: tuple[int | str, ...], input: object, msg: str, **_: object) -> str:
    return f"{'.'.join([kind, *map(str, loc)])}: found {input!r}; {msg[0].lower()}{msg[1:]}"


def _bounded(annotation: Any) -> Any:
    """Add the bounds of all numbers where the author of an option gave it none."""
    return annotation if has_bound(annotation) else Annotated[annotation, AfterValidator(_not_beyond_all_use)]


def has_bound(annotation: Any) -> bool:
    """Tell whether an annotation, or a part of it, says how large a number may be.

    >>> from pydantic import Field
    >>> has_bound(Annotated[int, Field(ge=0, le=2**40)] | None), has_bound(Annotated[int, Field(ge=0)])
    (True, False)
    """
    bounds = [bound for item in getattr(annotation, "__metadata__", ()) for bound in getattr(item, "metadata", [item])]
    return any(hasattr(bound, "le") or hasattr(bound, "lt") for bound in bounds) or any(
        map(has_bound, get_args(annotation))
    )


def _not_beyond_all_use(value: Any) -> Any:
    """Refuse a number that is too large for any purpose, also in a list."""
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, list | tuple):
            _not_beyond_all_use(item)
        elif isinstance(item, int | float):
            bound = LARGEST_WHOLE if isinstance(item, int) else LARGEST_NUMBER
            if abs(item) > bound:
                raise PydanticCustomError("beyond_all_use", f"Input should be between -{bound} and {bound}")
    return value
