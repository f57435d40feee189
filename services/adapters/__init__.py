"""Adapters: one engine each, behind the contract of its capability."""
