"""Analytics: what happened in an organisation, in numbers.

Owns: counts by topic and day, and what is known of each task (ids and dates, no words).
Publishes: nothing.
Consumes: the eight primary topics.
Promises: each event counts once, whatever is delivered twice; the figures of tasks are right in whatever order
events of different topics arrive, because a task's state is that of its highest version.
"""
