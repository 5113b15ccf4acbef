"""Checks, while the tests run, the tensor shapes that public functions name in their types.

A function is called first and its arguments and result are compared afterwards, so that it refuses
by itself what it refuses. What is compiled or exported is left alone: a comparison of sizes would
end up in the graph.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any, get_type_hints

import torch
from beartype.door import is_bearable
from jaxtyping import jaxtyped

CHECKED = {
    *(
        f"attnpriv.attention.{name}"
        for name in ("blockwise", "functional", "modules", "packing", "scores")
    ),
    *(f"attnpriv.explain.{name}" for name in ("attention", "gradients", "removal")),
}


class ShapeError(AssertionError):
    """A tensor has another shape or dtype than its annotation says, or than its neighbours have."""


def check_shapes() -> None:
    """Check the functions of CHECKED from their import on, which must be still to come."""
    assert not CHECKED & set(sys.modules)
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in CHECKED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None
        spec.loader = _Loader(name, str(spec.origin))
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        for owner, name, function in list(_with_shapes(module)):
            setattr(owner, name, _checked(function))


def _with_shapes(module: ModuleType) -> Iterator[tuple[Any, str, FunctionType]]:
    own = [x for x in vars(module).values() if getattr(x, "__module__", None) == module.__name__]
    for owner in (module, *filter(inspect.isclass, own)):
        for name, function in vars(owner).items():
            if getattr(function, "__module__", None) == module.__name__ and _names_shapes(function):
                yield owner, name, function


def _names_shapes(function: Any) -> bool:
    hints = function.__annotations__.values() if isinstance(function, FunctionType) else ()
    return any("[Tensor, " in str(hint) for hint in hints)


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)
    hints = {n: hint for n, hint in get_type_hints(function).items() if "jaxtyping" in str(hint)}
    fitting: set[Any] = set()  # most calls have the shapes of an earlier one

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        result = function(*args, **named)
        if not torch.compiler.is_compiling():
            form = _form((*args, *named.items(), result))
            if form not in fitting:
                given = signature.bind(*args, **named).arguments
                _compare(function.__qualname__, {**given, "return": result}, hints)
                fitting.add(form)
        return result

    return call


def _form(value: Any) -> Any:
    """All of a value that its hint can speak of."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape
    if isinstance(value, tuple | list):
        return tuple(map(_form, value))
    return value if isinstance(value, str) else type(value)


def _compare(function: str, values: dict[str, Any], hints: dict[str, Any]) -> None:
    with jaxtyped("context"):  # in which a letter stands for one size
        for name, value in values.items():
            if name in hints and not is_bearable(value, hints[name]):
                shapes = {n: list(x.shape) for n, x in values.items() if hasattr(x, "shape")}
                raise ShapeError(f"{function}: expected {name} as {hints[name]}, got {shapes}")
