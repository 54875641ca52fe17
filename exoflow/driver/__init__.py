"""The shell around the kernel: carries out its commands, brings it events, and runs flow bodies.

A run: ``execution`` (from outside), ``shell`` (events, commands, records).
A process: ``hold`` (its journals and live runs), ``runtime`` (begins runs, goes on with them).
A body: ``body`` (reads calls), ``calling`` (makes them), ``sync_body`` and ``async_body`` (how it waits), ``sleepers``
(what its strands wait for), ``signals``, ``life`` (begins, ends), ``notes`` (time, chance, choices), ``strands`` (who
makes a call).
A command: ``launching``, ``attempt``, ``outcomes``, ``saving``, ``undo``, ``looking``, ``ending``.
What it knows: ``values``, ``history``, ``handle``, ``records``, ``spec``, ``identity``, ``damage``.
"""
