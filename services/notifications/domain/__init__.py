"""What is true of notices, watched tasks, letters and deliveries, even with no computer."""
