"""Many answers to one question, and the one that most agree on.

Rooms:
    parse, equivalence   from a text to what is voted for; when two are the same                 pure
    tally                counting, ties                                                          pure
    stops                when it is enough                                                       pure
    results              what is told of a vote
    asking               samples and their calls; judges and the like, in the flow
    flows                vote, filter_vote, adaptive_vote, weighted_vote, best_of_n
"""
