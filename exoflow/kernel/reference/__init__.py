"""The rules once more, with nothing kept from one event to the next.

The kernel counts, marks and queues, so that an event costs microseconds. Here every question is answered anew from
plain facts: what the bodies called and read, what attempts came to, which records exist, which commands were given.
Read this to decide whether to trust ExoFlow; ``tests/property/test_kernel_forms.py`` holds the two forms against each
other after every event of random histories. The rules' names are those of ``docs/guarantees.md``.

Each room knows those above it in this list, and none below: ``facts``, what is known; ``graph``, what is behind a
call; ``commits``, what is committed; ``needs``, what has to run; ``falls``, what is retired and undone; ``gates``, what
may start; ``orders``, what to do now.
"""

from exoflow.kernel.reference.commits import available, closed, is_covered
from exoflow.kernel.reference.falls import stands_on_fallen, to_remake, to_retire, to_undo
from exoflow.kernel.reference.gates import gate
from exoflow.kernel.reference.graph import agrees, is_choice, lineage, newest, states, taken
from exoflow.kernel.reference.needs import has_value, history_left, holder, needed, untaken
from exoflow.kernel.reference.orders import due

__all__ = [
    "agrees",
    "available",
    "closed",
    "due",
    "gate",
    "has_value",
    "history_left",
    "holder",
    "is_choice",
    "is_covered",
    "lineage",
    "needed",
    "newest",
    "stands_on_fallen",
    "states",
    "taken",
    "to_remake",
    "to_retire",
    "to_undo",
    "untaken",
]
