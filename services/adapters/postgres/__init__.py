"""PostgreSQL behind `isa.sql.v1`.

Owns: a database and a login for each organisation, made on first use.
Serves: tenants in their own database, and our own rooms in theirs, bound to the organisation that they act for.
Promises: one statement a text, parameters only, a transaction a call.
"""
