"""Notifications: what concerns whom, in an inbox and by e-mail.

Owns: an inbox a user, e-mail deliveries, daily digests, and of each task who made it, who is to do it and when. Ids
only: names, addresses and titles are asked of `users` and `tasks` when a mail is written, and kept nowhere.
Publishes: notification.sent, once for each inbox item and once for each e-mail that left.
Consumes: task.created, task.updated, task.completed, task.deleted, reminder.triggered, user.registered,
org.member.added.
Promises: an event tells each user at most once in the inbox; an e-mail is sent at least once, with a Message-ID by
which a second copy is known, and waits while who must be asked is away; one digest a user and day.
"""
