"""Calls of models: recorded in a flow, and never paid for twice.

Rooms:
    llm             what a user writes down of a model, and calls
    recorded        the task whose calls are recorded
    calling         one call: its turn, its tries, what it cost
    question        what is asked, checked
    answer, forms   what was answered; structured output
    how             what does not make two calls different: keys, prices, limits
    endpoint        one try over HTTP; reading, failures, usage: what came of it
    connections     of each event loop
    streaming       an answer that is read as it comes, outside of a flow
    on_engine       the built-in engine instead of an endpoint
"""

from exoflow.llm.calls.answer import Answer, TokenLogprob, ToolCall
from exoflow.llm.calls.llm import LLM
from exoflow.llm.calls.prices import Prices

__all__ = ["LLM", "Answer", "Prices", "TokenLogprob", "ToolCall"]
