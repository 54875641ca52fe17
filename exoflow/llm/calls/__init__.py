"""Calls of models: recorded in a flow, and never paid for twice.

Rooms:
    llm                 what a user writes down of a model, and calls
    recorded            the task whose calls are recorded
    question, places    what is asked, and where; checked
    answer, forms       what was answered; structured output
    prices, usage       what it cost
    how                 what does not make two calls different: keys, prices, limits
    calling, retrying   one call: its turn, its tries
    endpoint, reading, failures     one try over HTTP, and what came of it
    connections         of each event loop
    streaming           an answer that is read as it comes, outside of a flow
    batch               many calls in one file
    metering            what a block of a flow calls: a judge is a part of its vote
    on_engine           the built-in engine instead of an endpoint
"""

from exoflow.llm.calls.answer import Answer, TokenLogprob, ToolCall
from exoflow.llm.calls.llm import LLM
from exoflow.llm.calls.prices import Prices

__all__ = ["LLM", "Answer", "Prices", "TokenLogprob", "ToolCall"]
