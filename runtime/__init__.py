"""How the set runs on one machine without containers: engines from registries, processes, order of health."""
