"""Measurements: ours, its peers and the bare engine in the same run, as ratios and as CPU per operation."""
