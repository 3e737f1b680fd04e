"""Plain values to models, and pydantic's complaints to findings that people can act upon.

Strategy: one call validates and collects every error. Our own rules raise `BadValue`, which comes
through unchanged; for the few kinds of error that pydantic finds by itself there is one table.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cdn.config.problems import BadValue, Finding, Loc, shown
from cdn.config.values import Context

M = TypeVar("M", bound=BaseModel)

_EXPECTED = {
    "bool_type": ("true or false", "write true or false"),
    "float_type": ("a number", "write a number without quotes, e.g. 0.5"),
    "tuple_type": ("a list", "write [a, b], or lines that begin with a dash"),
    "model_type": ("a mapping", "write lines of key: value under it"),
}


def validate(
    model: type[M], raw: Mapping[str, Any], context: Context
) -> tuple[M | None, list[Finding]]:
    """The model of `raw`, or None with everything that is wrong."""
    try:
        return model.model_validate(raw, context=context), []
    except ValidationError as error:
        return None, [_finding(model, details) for details in error.errors(include_url=False)]


def _finding(model: type[BaseModel], error: ErrorDetails) -> Finding:
    loc: Loc = error["loc"]
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, BadValue):
        return Finding(loc, cause.what, cause.mend)
    match error["type"]:
        case "extra_forbidden":
            return Finding(loc, "is not a key here", _known_keys(model, loc))
        case "missing":
            return Finding(loc, "is missing", f"write e.g. {loc[-1]}: {_example(model, loc)}")
        case kind if kind in _EXPECTED:
            expected, mend = _EXPECTED[kind]
            return Finding(loc, f"{shown(error['input'])} is not {expected}", mend)
        case _:
            message = error["msg"].removeprefix("Input should be ")
            return Finding(loc, f"{shown(error['input'])} will not do", f"write a value {message}")


def _known_keys(model: type[BaseModel], loc: Loc) -> str:
    keys = list(_model_around(model, loc).model_fields)
    near = difflib.get_close_matches(str(loc[-1]), keys, n=1)
    return f"did you mean {near[0]}?" if near else f"the keys are {', '.join(keys)}"


def _example(model: type[BaseModel], loc: Loc) -> str:
    examples = _model_around(model, loc).model_fields[str(loc[-1])].examples
    return str(examples[0]) if examples else "…"


def _model_around(model: type[BaseModel], loc: Loc) -> type[BaseModel]:
    """The model that has (or should have) the last key of `loc`."""
    for step in loc[:-1]:
        if isinstance(step, str):
            model = model_in(model.model_fields[step].annotation) or model
    return model


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)
