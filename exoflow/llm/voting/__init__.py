"""Many answers to one question, and the one that most agree on.

Rooms:
    parse, equivalence   from a text to what is voted for; when two are the same                 pure
    tally                counting, ties                                                          pure
    stops                when it is enough                                                       pure
    results              what is told of a vote
    deciding             from samples to that
    asking, consulting   samples and their calls; what judges and the like say of them, in the flow
    flows                vote, filter_vote, adaptive_vote, weighted_vote, best_of_n
"""

from exoflow.llm.voting.asking import mean_probability
from exoflow.llm.voting.equivalence import canonical, verbatim
from exoflow.llm.voting.flows import adaptive_vote, best_of_n, filter_vote, vote, weighted_vote
from exoflow.llm.voting.parse import choice, first_line, json_field, number, regex, whole
from exoflow.llm.voting.results import AdaptiveVote, BestOf, FilterVote, Sample, Vote, WeightedVote
from exoflow.llm.voting.stops import BetaStop, Budget, Margin, Stop, Window

__all__ = [
    "AdaptiveVote",
    "BestOf",
    "BetaStop",
    "Budget",
    "FilterVote",
    "Margin",
    "Sample",
    "Stop",
    "Vote",
    "WeightedVote",
    "Window",
    "adaptive_vote",
    "best_of_n",
    "canonical",
    "choice",
    "filter_vote",
    "first_line",
    "json_field",
    "mean_probability",
    "number",
    "regex",
    "verbatim",
    "vote",
    "weighted_vote",
    "whole",
]
