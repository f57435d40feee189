"""NATS behind `isa.streams.v1`.

Owns: nothing; an organisation's subjects, streams and buckets are below a token of its own.
Promises: a durable publish, a put or a settlement that was answered is on the disk of NATS, where NATS syncs always.
"""
