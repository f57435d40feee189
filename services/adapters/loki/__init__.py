"""Loki behind `isa.logs.v1`.

Owns: nothing; an organisation's lines are under its id, a workload's own under a tenant that no token can name.
Promises: a page that follows another neither loses nor repeats a line, also where times are equal.
"""
