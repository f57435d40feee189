"""Where people, proofs, keys and preferences live."""
