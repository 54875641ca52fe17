"""Read a flow's source: which tasks it names, and which earlier results may stand behind each. Nothing is run.

Conservative: a result that *may* stand behind a call on some path counts. The body's own reads count for every later
call (G10), loops are gone through twice, branches are joined, functions of the flow's own module are followed.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from exoflow.actors import Cast
from exoflow.cli.casting import Actors, cast_of
from exoflow.cli.source import Site, Taint, arguments, method_name, names_in, source_of, spec_of, with_options
from exoflow.driver.spec import FlowSpec, TaskSpec

_NOTES = ("now", "as_completed")
"""What a body asks of the world; recorded like any choice (L7)."""
_METHODS = ("submit", "map", "generate")
"""Of a task, or of what is called in a flow like one: an ``LLM``, an ``EngineSpec``."""
_DEPTH = 6

_NONE: Taint = frozenset()


def sites(flow: FlowSpec) -> list[Site]:
    """The calls that a flow's source makes, in the order in which they are written.

    Raises:
        ExoFlowError: the source is not there: a flow typed into a shell, say.
    """
    survey = _Survey()
    survey.body(flow.function, (), {}, _NONE)
    return survey.sites


class _Survey:
    def __init__(self) -> None:
        self.sites: list[Site] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        self._stack: list[object] = []
        self.actors = Actors()

    def body(
        self, function: Callable[..., Any], path: tuple[str, ...], arguments: Mapping[str, Taint], reads: Taint
    ) -> tuple[Taint, Taint]:
        """Go through a body; what may stand behind its result, and all that it may have read."""
        function = inspect.unwrap(function)
        if function in self._stack or len(self._stack) >= _DEPTH:
            return frozenset(range(len(self.sites))), reads
        tree, file, shift = source_of(function)
        self._stack.append(function)
        reader = _Reader(self, function, path, file, shift, dict(arguments), reads)
        reader.run(tree.body)
        self._stack.pop()
        return reader.returned, reader.reads

    def site(self, name: str, how: str, task: TaskSpec | None, reader: _Reader, node: ast.AST, behind: Taint) -> int:
        line = getattr(node, "lineno", 1) + reader.shift
        key = (reader.file, line, getattr(node, "col_offset", 0), reader.path)
        if key not in self._numbers:
            self._numbers[key] = len(self.sites)
            self.sites.append(Site(name, reader.file, line, how, task, reader.path))
        number = self._numbers[key]
        self.sites[number].behind.update(dict.fromkeys(sorted(behind - {number})))
        return number


class _Reader:
    """One pass over one body. ``env`` says what may stand behind each variable."""

    def __init__(
        self, survey: _Survey, function: Callable[..., Any], path: tuple[str, ...], file: str, shift: int,
        env: dict[str, Taint], reads: Taint,
    ) -> None:  # fmt: skip
        self.survey = survey
        self.function = function
        self.path = path
        self.file = file
        self.shift = shift
        self.env = env
        self.reads = reads
        self.returned: Taint = _NONE
        self._names = names_in(function)

    # -- statements ------------------------------------------------------------------------------------------------

    def run(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.For, ast.AsyncFor)):
            for _ in range(2):  # what a turn leaves behind stands behind the next
                self._bind(node.target, self._value(node.iter), join=True)
                self._branches([node.body, []])
            self.run(node.orelse)
        elif isinstance(node, ast.While):
            for _ in range(2):
                self._value(node.test)
                self._branches([node.body, []])
            self.run(node.orelse)
        elif isinstance(node, ast.If):
            self._value(node.test)
            self._branches([node.body, node.orelse])
        elif isinstance(node, ast.Try):
            self._branches([node.body, []])
            self._branches([*(handler.body for handler in node.handlers), node.orelse])
            self.run(node.finalbody)
        elif isinstance(node, ast.Match):
            subject = self._value(node.subject)
            for case in node.cases:
                for pattern in ast.walk(case.pattern):
                    name = getattr(pattern, "name", None) or getattr(pattern, "rest", None)
                    if isinstance(name, str):
                        self.env[name] = subject
            self._branches([case.body for case in node.cases])
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inner = dict(self.env)
            self.run(node.body)
            self.env = {**inner, node.name: frozenset().union(*self.env.values(), self.returned)}
        else:
            self._simple(node)

    def _simple(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._bind(node.target, self._value(node.value))
        elif isinstance(node, ast.AugAssign):
            self._bind(node.target, self._value(node.value), join=True)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                value = self._value(item.context_expr)
                if item.optional_vars is not None:
                    self._bind(item.optional_vars, value)
            self.run(node.body)
        elif isinstance(node, ast.Return):
            self.returned |= self._value(node.value) if node.value is not None else _NONE
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self._value(child)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        """``a, b = x, y`` one by one; everything else as a whole."""
        rows = (ast.Tuple, ast.List)
        if isinstance(target, rows) and isinstance(value, rows) and len(target.elts) == len(value.elts):
            taints = [self._value(each) for each in value.elts]
            if not any(isinstance(each, ast.Starred) for each in [*target.elts, *value.elts]):
                for each, taint in zip(target.elts, taints, strict=True):
                    self._bind(each, taint)
                return
        self._bind(target, self._value(value))

    def _branches(self, bodies: Iterable[Iterable[ast.stmt]]) -> None:
        """Any one of these may be taken."""
        before, after = self.env, dict[str, Taint]()
        for body in bodies:
            self.env = dict(before)
            self.run(body)
            for name, taint in self.env.items():
                after[name] = after.get(name, _NONE) | taint
        self.env = after

    def _bind(self, target: ast.expr, taint: Taint, *, join: bool = False) -> None:
        if isinstance(target, ast.Name):
            self.env[target.id] = taint | (self.env.get(target.id, _NONE) if join else _NONE)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for element in target.elts:
                self._bind(element, taint, join=join)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, taint, join=join)
        elif isinstance(target, (ast.Attribute, ast.Subscript)):
            self._bind(target.value, taint | self._value(target.value), join=True)

    # -- expressions -----------------------------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Taint:
        """What may stand behind an expression's value."""
        if isinstance(node, ast.Name):
            return self.env.get(node.id, _NONE)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Await):
            return self._read(self._value(node.value))
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            return self._comprehension(node)
        if isinstance(node, ast.NamedExpr):
            value = self._value(node.value)
            self._bind(node.target, value)
            return value
        if isinstance(node, ast.Lambda):
            return self._value(node.body)
        children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        return frozenset().union(*map(self._value, children))

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Taint:
        behind = _NONE
        for part in node.generators:
            taken = self._value(part.iter)
            behind |= taken
            self._bind(part.target, taken, join=True)
            for condition in part.ifs:
                self._value(condition)
        made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        return behind.union(*map(self._value, made))

    def _read(self, taint: Taint) -> Taint:
        self.reads |= taint
        return taint

    def _call(self, node: ast.Call) -> Taint:
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        found = self._object(node.func)
        cast = cast_of(found)
        spec = spec_of(found)
        how = "call"
        if spec is None and isinstance(node.func, ast.Attribute) and method in _METHODS:
            spec, how = spec_of(self._object(node.func.value)), method
        given = [self._value(value) for value in [*node.args, *(keyword.value for keyword in node.keywords)]]
        taken = frozenset().union(*given)
        if cast is not None:
            return self._creation(*cast, node, taken)
        if isinstance(spec, TaskSpec):
            return self._task(spec, how, node, taken)
        if isinstance(spec, FlowSpec):
            return self._child(spec, how, taken)
        if method == "options" and isinstance(node.func, ast.Attribute) and spec_of(self._object(node.func.value)):
            return taken
        if getattr(found, "__module__", "").startswith("exoflow") and method_name(node.func) in _NOTES:
            number = self.survey.site(method_name(node.func), "reading", None, self, node, self.reads | taken)
            return self._read(frozenset({number}) | taken)
        if isinstance(found, FunctionType) and found.__module__ == self.function.__module__:
            result, self.reads = self.survey.body(found, self.path, arguments(found, node, given), self.reads)
            return result | taken
        return self._other(node, method, taken)

    def _task(self, spec: TaskSpec, how: str, node: ast.AST, taken: Taint) -> Taint:
        behind = taken | self.reads
        if spec.actor is not None:
            behind |= self.survey.actors.state(spec.actor)
        number = self.survey.site(spec.name, how, spec, self, node, behind)
        result = behind | {number}
        if spec.actor is not None:
            self.survey.actors.changed(spec.actor, result)
        is_read = how in ("call", "generate") and not inspect.iscoroutinefunction(self.function)
        return self._read(result) if is_read else result

    def _creation(self, cls: type, made: Cast, node: ast.AST, taken: Taint) -> Taint:
        behind = taken | self.reads
        number = self.survey.site(made.creates.name, "call", made.creates, self, node, behind)
        self.survey.sites[number].creates = made
        self.survey.actors.created(number, cls, made, behind | {number})
        return behind | {number}

    def _child(self, spec: FlowSpec, how: str, taken: Taint) -> Taint:
        parameters = dict.fromkeys(inspect.signature(spec.function).parameters, taken)
        result, inner = self.survey.body(
            spec.function, (*self.path, spec.task.name if spec.task else spec.name), parameters, self.reads | taken
        )
        result |= inner
        return self._read(result) if how == "call" and not spec.is_async else result

    def _other(self, node: ast.Call, method: str, taken: Taint) -> Taint:
        """A call of something else: a method may put what it is given into its object, ``result`` reads it."""
        if not isinstance(node.func, ast.Attribute):
            return taken | self._value(node.func)
        held = self._value(node.func.value)
        if method in ("result", "exception", "done"):
            return self._read(held | taken)
        if taken:
            self._bind(node.func.value, held | taken, join=True)
        return held | taken

    def _object(self, node: ast.expr) -> object:
        """The object that a name in the source stands for, where that can be said without running it."""
        if isinstance(node, ast.Name):
            return None if node.id in self.env else self._names.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._object(node.value)
            if isinstance(owner, (ModuleType, type)):
                return getattr(owner, node.attr, None)
            actors = self.survey.actors
            return actors.method(self._value(node.value), node.attr) if actors.has_method(node.attr) else None
        if isinstance(node, ast.Call) and method_name(node.func) == "options" and isinstance(node.func, ast.Attribute):
            return with_options(self._object(node.func.value), node)
        return None
