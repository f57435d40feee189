"""What is true about tasks even with no computer: one file a noun."""
