"""``FILE:FLOW`` to a flow."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from exoflow.cli.failures import WrongUsage
from exoflow.cli.source import spec_of
from exoflow.cli.words import listed
from exoflow.driver.spec import FlowSpec


def looks_like_flow(target: str) -> bool:
    """Whether this is FILE:FLOW, or a FILE, rather than the id of a run."""
    file, colon, flow = target.rpartition(":")
    return target.endswith(".py") or bool(colon and flow.isidentifier() and (file.endswith(".py") or _is_module(file)))


def find_flow(target: str) -> FlowSpec:
    """The flow of ``file.py:flow`` or ``module:flow``; of ``file.py`` if it has only one.

    Raises:
        WrongUsage: there is no such file or flow, or the file cannot be imported; the message says what there is.
    """
    return spec_of_flow(find_flow_object(target))


def find_flow_object(target: str) -> object:
    """What stands in the file under the flow's name. Raises as ``find_flow``."""
    file, colon, name = target.rpartition(":")
    if not colon:
        file, name = target, ""
    module = load_module(file)
    flows = flows_in(module)
    if not flows:
        raise WrongUsage(f"{file} has no flow: a function with @flow, at the top of the file")
    if not name:
        if len(flows) > 1:
            raise WrongUsage(f"{file} has {len(flows)} flows: write {file}:FLOW with one of {listed(list(flows), 20)}")
        return next(iter(flows.values()))
    if name not in flows:
        near = difflib.get_close_matches(name, flows, n=1)
        there = f"did you mean {near[0]}?" if near else f"it has {listed(list(flows), 20)}"
        what = "is not a flow" if hasattr(module, name) else "is not in it"
        raise WrongUsage(f"{file} has no flow {name!r} ({name} {what}); {there}")
    return flows[name]


def spec_of_flow(flow: object) -> FlowSpec:
    spec = spec_of(flow)
    assert isinstance(spec, FlowSpec), flow
    return spec


def flows_in(module: ModuleType) -> Mapping[str, object]:
    """The flows of a module by name; imported ones only if it has none of its own."""
    named = {name: value for name, value in vars(module).items() if isinstance(spec_of(value), FlowSpec)}
    own = {name: value for name, value in named.items() if spec_of_flow(value).module == module.__name__}
    return own or named


def load_module(file: str) -> ModuleType:
    """Import a file as Python would if it stood in its folder, or a module by its dotted name.

    Raises:
        WrongUsage: there is none, or it raised an error; its own traceback is part of the message.
    """
    path = Path(file)
    if file.endswith(".py") or os.sep in file:
        if not path.is_file():
            raise WrongUsage(f"there is no file {file}{_near_file(path)}")
        name, folder = _module_name(path.resolve())
    elif _is_module(file):
        name, folder = file, Path.cwd()
    else:
        raise WrongUsage(f"{file!r} is no file: write FILE:FLOW, as in jobs.py:daily")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(name)
    except Exception as error:  # the file's own code
        raise WrongUsage(f"{file} cannot be imported: {_own_error(error)}") from error
    found = getattr(module, "__file__", None)
    if path.is_file() and found is not None and not path.samefile(found):
        raise WrongUsage(f"{file} cannot be imported: another module is called {name} ({found}); rename the file")
    return module


def make_importable(file: str | None, module: str) -> None:
    """Let a module be imported by its name, as it was where its file had been given: recorded values name it."""
    if file is None or not module:
        return
    name, folder = _module_name(Path(file))
    if name == module and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _is_module(name: str) -> bool:
    return bool(name) and all(part.isidentifier() for part in name.split("."))


def _module_name(path: Path) -> tuple[str, Path]:
    """The dotted name of a file, and the folder from which it is imported: above its package, if it is in one."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts if parts[-1] != "__init__" or len(parts) == 1 else parts[:-1]), folder


def _near_file(path: Path) -> str:
    try:
        there = sorted(each.name for each in path.parent.glob("*.py"))
    except OSError:
        there = []
    near = difflib.get_close_matches(path.name, there, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _own_error(error: BaseException) -> str:
    """The error in a line, with the place in the user's own code."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if f"{os.sep}exoflow{os.sep}" not in frame.filename]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
