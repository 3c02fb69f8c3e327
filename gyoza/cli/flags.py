"""Flags that several commands share: described once, as the fields of a dataclass."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = ParamSpec("P")
T = TypeVar("T")
Flags = TypeVar("Flags", bound="DataclassInstance")


def takes(
    kind: type[Flags],
) -> Callable[[Callable[Concatenate[Flags, P], T]], Callable[P, T]]:
    """Give a command the flags of `kind`, which it gets as its first argument.

    Args:
        kind: A dataclass; its fields are annotated as typer's options are, and have defaults.
    """

    def decorate(command: Callable[Concatenate[Flags, P], T]) -> Callable[P, T]:
        @wraps(command)
        def with_flags(*args: P.args, **kwargs: P.kwargs) -> T:
            given = {f.name: kwargs.pop(f.name) for f in fields(kind) if f.name in kwargs}
            return command(kind(**given), *args, **kwargs)

        _, *own = inspect.signature(command).parameters.values()
        shared = [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
            )
            for f in fields(kind)
        ]
        cast("Any", with_flags).__signature__ = inspect.Signature([*own, *shared])
        return with_flags

    return decorate
