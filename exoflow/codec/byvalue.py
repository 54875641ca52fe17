"""Pickling by value, by way of cloudpickle: lambdas, local classes, and what a REPL defines."""

from __future__ import annotations

import io
import pickle
from collections import ChainMap
from types import FunctionType
from typing import Any, ClassVar

import cloudpickle

from exoflow.codec.engines import reduce_engine_object
from exoflow.codec.mainfile import reduce_by_name


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle, except that what has a file and a name goes by them, and an open file is refused, not read."""

    dispatch_table: ClassVar[Any] = ChainMap(
        {kind: reduce for kind, reduce in cloudpickle.Pickler.dispatch_table.items() if kind is not io.TextIOWrapper}
    )

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType | type):
            try:
                by_name = reduce_by_name(obj)
            except pickle.PicklingError:
                by_name = None
            if by_name is not None:
                return by_name
        reduced = reduce_engine_object(obj)
        return super().reducer_override(obj) if reduced is None else reduced
