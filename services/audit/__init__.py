"""Audit: who did what, to what, when, and how it ended; kept so that a change of it shows.

Owns: one append-only chain of records per organisation, and the chain `platform` for what belongs to none.
Publishes: nothing.
Consumes: every business topic, control.changed, and audit.recorded (calls of every room).
Promises: each event and each call is one record, whatever is delivered twice; a record that is changed,
removed, inserted or moved breaks its chain where `isa audit verify` says; the newest hashes stand in
the log store too, so that cutting the end off shows as well. Records hold ids, never names.
"""
