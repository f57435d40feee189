"""What a store holds, written to a folder and brought back from it: one file a store, and the drill that proves it.

Kafka, Redis, NATS, objects and a Qdrant server are reached over the network alone, wherever they run. PostgreSQL,
Loki, the embedded vectors and the configuration are those of the set on this machine; a cloud has its own way for each.
"""
