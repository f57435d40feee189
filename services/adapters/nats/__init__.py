"""NATS behind `isa.streams.v1`.

Owns: nothing; an organisation's subjects, streams and buckets are below a token of its own.
Promises: a durable publish or a put that was answered is on the disk of NATS, where it runs with
`sync_interval: always`.
"""
