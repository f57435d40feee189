"""Where tasks live: keys and queries, one file a table."""
