"""What a piece of source stands for: the function behind it, the objects that its names mean."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from exoflow.actors import Cast
from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.errors import ExoFlowError

Taint = frozenset[int]
"""Numbers of the sites whose results may stand behind a value."""


@dataclass(slots=True)
class Site:
    """A place in the source where a task is called."""

    name: str
    file: str
    line: int
    how: str
    """call, submit, map; or reading, for what the body asks of the world."""
    task: TaskSpec | None
    path: tuple[str, ...]
    """The child flows that it is in."""
    behind: dict[int, None] = field(default_factory=dict)
    """Numbers of the sites whose results may stand behind it, in order."""
    creates: Cast | None = None
    """The actor that it creates."""


def spec_of(value: object) -> TaskSpec | FlowSpec | None:
    """What a decorated function knows of itself."""
    spec = getattr(value, "_spec", None)
    return spec if isinstance(spec, (TaskSpec, FlowSpec)) else None


def source_of(function: Callable[..., Any]) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, str, int]:
    """A function's syntax tree, its file, and what to add to the tree's line numbers."""
    try:
        lines, start = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or "?"
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError) as error:
        name = getattr(function, "__qualname__", repr(function))
        raise ExoFlowError(
            f"the source of {name} is not to be had ({error}), so there is nothing to explain"
        ) from error
    found = tree.body[0]
    if not isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise ExoFlowError(f"{file}, line {start}: this is not a function, so there is nothing to explain")
    return found, file, start - 1


def method_name(node: ast.expr) -> str:
    """The last part of what is called."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def with_options(found: object, node: ast.Call) -> object:
    """``task.options(...)``, with those of its options that are plain constants."""
    if spec_of(found) is None:
        return None
    constants = [each for each in node.keywords if each.arg and isinstance(each.value, ast.Constant)]
    options = {str(each.arg): ast.literal_eval(each.value) for each in constants}
    try:
        return found.options(**options)  # type: ignore[attr-defined]  # what has a spec has options
    except (TypeError, ValueError):
        return found


def names_in(function: Callable[..., Any]) -> dict[str, object]:
    """What the names in a function mean that it does not bind itself."""
    found: dict[str, object] = dict(vars(builtins))
    found.update(getattr(function, "__globals__", {}))
    with suppress(TypeError, ValueError):  # a cell that is still empty
        found.update(inspect.getclosurevars(function).nonlocals)
    return found


def arguments(function: FunctionType, node: ast.Call, given: list[Taint]) -> dict[str, Taint]:
    """What stands behind each parameter; where a star makes that unclear, everything behind all."""
    parameters = list(inspect.signature(function).parameters)
    starred = any(isinstance(each, ast.Starred) for each in node.args) or any(k.arg is None for k in node.keywords)
    if starred:
        return dict.fromkeys(parameters, frozenset().union(*given))
    names = [*parameters[: len(node.args)], *(str(keyword.arg) for keyword in node.keywords)]
    return dict(zip(names, given, strict=False))
