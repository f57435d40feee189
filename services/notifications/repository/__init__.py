"""Where it lives: inboxes, watches, people, digests and deliveries in the database, and letters on their way out."""
