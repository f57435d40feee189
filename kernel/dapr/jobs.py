"""Jobs: Dapr's scheduler is the trigger. What a job is about stands in a database, never in the job alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import orjson
from dapr.proto.runtime.v1 import jobs_pb2
from google.protobuf import any_pb2

from isa_common import NotFound
from kernel.dapr.sidecar import Sidecar, translated

TIMEOUT = 10.0
JSON = "type.googleapis.com/google.protobuf.StringValue"
"""The type that daprd hands to an HTTP app as it is: the body of `POST /job/<name>` is the value."""


class Jobs:
    """This app's jobs."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    async def schedule(
        self,
        name: str,
        due: datetime | None = None,
        *,
        schedule: str | None = None,
        data: Mapping[str, object] | None = None,
    ) -> None:
        """Create or replace a job: once at `due`, or by `schedule`, a cron expression of six fields or `@every 10s`."""
        payload = any_pb2.Any(type_url=JSON, value=orjson.dumps(data or {}))
        job = jobs_pb2.Job(name=name, data=payload, schedule=schedule, due_time=due.isoformat() if due else None)
        async with translated(f"The job {name}"):
            await self._sidecar.stub.ScheduleJob(
                jobs_pb2.ScheduleJobRequest(job=job, overwrite=True), timeout=TIMEOUT, metadata=self._sidecar.metadata
            )

    async def delete(self, name: str) -> None:
        """Delete a job; one that is not there is no error."""
        try:
            async with translated(f"The job {name}"):
                await self._sidecar.stub.DeleteJob(
                    jobs_pb2.DeleteJobRequest(name=name), timeout=TIMEOUT, metadata=self._sidecar.metadata
                )
        except NotFound:
            return
