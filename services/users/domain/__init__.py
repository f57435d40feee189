"""What is true of people, organisations and proofs with no computer at hand."""
