"""What all executors share of actors: ``living`` has those of a process, ``lanes`` the threads that speak with them.

On a cluster, ``actors`` is the executor's side of them and ``worker_actors`` the worker's. What surrounds a call of one
is ``exoflow.attempts.actors``; ``exoflow.actors`` is the decorator, and a flow's handle.
"""
