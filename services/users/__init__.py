"""Who people and programs are, which organisation they belong to, and what proves it.

Owns: organisations, members, invitations, log-ins, sessions, client credentials, signing keys and preferences. Names
and e-mail addresses live in this room's database and nowhere else; everybody else knows ids.
Publishes: org.created, org.member.added, org.member.removed, org.member.role.changed, user.registered,
user.authenticated, control.changed.
Consumes: org.member.removed (its own), to forget the preferences of who left.
Promises: one e-mail address is one user of one organisation; what changes rights is refused everywhere within a second;
a refresh token works once, and a second use ends its session; nobody learns from log-in or reset who has an account.
"""
