"""The `isa` command: one file a noun, each with `register(app)`."""
