"""The task by which a flow's change of a tenant's terms is recorded."""

from __future__ import annotations

import time

from exoflow.llm.fair.policy import Path
from exoflow.llm.fair.tenants import Tenant
from exoflow.tasks import task


@task(executor="local", checkpoint="sync", name="update_tenant", version="1")
def updated(path: Path, tenant: Tenant) -> int:
    """When it was changed, in 1e-9 s since the epoch: of several changes the last one counts, also after a replay."""
    return time.time_ns()
