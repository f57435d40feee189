"""Tasks: what people promised to do, and when they want to be reminded.

Owns: tasks, reminders, the answers kept for an `Idempotency-Key`, and which imported lines are already taken.
Publishes: task.created, task.updated, task.completed, task.deleted, reminder.triggered.
Consumes: org.member.removed (their tasks lose their assignee, their reminders are withdrawn).
Promises: every change and its events commit together or not at all; a repeated `Idempotency-Key` has one effect; a
reminder fires once, also when the scheduler lost it; an import can be sent again and takes nothing twice.
"""
