"""The shell around the kernel: carries out its commands, brings it events, and runs flow bodies.

A run: ``execution`` (from outside), ``shell`` (events, commands, records), ``runtime`` (all of a process).
A body: ``body`` (makes calls, reads them), ``sync_body`` and ``async_body`` (how it waits), ``life`` (begins, ends),
``notes`` (time, chance, choices), ``strands`` (who makes a call).
A command: ``launching``, ``attempt``, ``outcomes``, ``saving``, ``undo``, ``looking``, ``ending``.
What it knows: ``values``, ``history``, ``handle``, ``records``, ``spec``, ``identity``, ``damage``.
"""
