"""The peer of the vectors: the engine in this process, with no network, no tenant and nothing around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qdrant_edge

LIMIT = 10


def shard(folder: str, vectors: Any) -> qdrant_edge.EdgeShard:
    """Make a shard of the rows of an array, numbered from 0, each with its number as payload."""
    params = qdrant_edge.EdgeVectorParams(size=len(vectors[0]), distance=qdrant_edge.Distance.Cosine)
    place = Path(folder) / "shard"
    made = qdrant_edge.EdgeShard.create(str(place), qdrant_edge.EdgeConfig(vectors=params))
    for start in range(0, len(vectors), 1000):
        points = [
            qdrant_edge.Point(number, vectors[number].tolist(), {"n": number}) for number in range(start, start + 1000)
        ]
        made.update(qdrant_edge.UpdateOperation.upsert_points(points))
    return made


def search(of: qdrant_edge.EdgeShard, vector: Sequence[float]) -> int:
    """Find the nearest; return how many."""
    question = qdrant_edge.QueryRequest(query=qdrant_edge.Query.Nearest(list(vector)), limit=LIMIT, with_payload=True)
    return len(of.query(question))
