"""Qdrant behind `isa.vectors.v1`: embedded, in worker processes of this room, or a server elsewhere.

Owns: the folder of the embedded engine, a shard a collection; of a server, the collections that its names begin.
Promises: what was acknowledged survives the death of this process; embedded, the last second may be lost with the
power. One replica an embedded folder.
"""
