"""Redis behind `isa.cache.v1`.

Owns: nothing; every name begins with its tenant, and values are plain Redis values.
Promises: commands of all callers share one connection and still run in the order of each caller; what was sent when
the connection broke fails, and is never sent again.
"""
