"""Who is plugged into whom in users."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, IPvAnyNetwork
from pydantic_settings import SettingsConfigDict

from kernel import Parts, RoomSettings, Seconds
from services.users.domain.access import Limit
from services.users.domain.keys import Issuer, Passwords, master_key
from services.users.handlers import Desk, Handlers
from services.users.handlers.desk import Limits
from services.users.handlers.oauth import SECRET_SIGNING
from services.users.repository.access import Proofs, Throttles
from services.users.repository.keys import Keyring
from services.users.repository.mail import Mail
from services.users.repository.people import People
from services.users.repository.preferences import Preferences

SECRET_MASTER = "users-master-key"  # noqa: S105 -- a name


class Settings(RoomSettings):
    """What an operator may change."""

    model_config = SettingsConfigDict(env_prefix="USERS_", extra="ignore", populate_by_name=True)

    issuer: str = Field(default="isa-users", validation_alias="ISA_TOKEN_ISSUER")
    """Claim `iss` of the tokens that this room signs; the same as in every process."""
    audience: str = Field(default="isa", validation_alias="ISA_TOKEN_AUDIENCE")
    """Their claim `aud`, likewise."""
    token_algorithm: Literal["EdDSA", "RS256"] = "EdDSA"  # noqa: S105 -- a name
    """How people's tokens are signed. A change makes a new key at the next token."""
    token_life: Seconds = timedelta(minutes=10)
    """How long an access token is good; an outage of `control.changed` hides a revocation no longer."""
    session_life: Seconds = timedelta(days=30)
    """How long somebody stays logged in by refreshing."""
    key_published_before: Seconds = timedelta(minutes=2)
    """How long a new signing key is in the key set before it signs; a minute at least."""
    attempts_per_account: int = 10
    """Failed log-ins of one account within the window, before it has to wait."""
    attempts_per_address: int = 300
    """Failures from one network address within the window, before it has to wait."""
    attempts_window: Seconds = timedelta(minutes=15)
    """How long a failure counts."""
    trusted_proxies: frozenset[IPvAnyNetwork] = frozenset()
    """Addresses and networks whose X-Forwarded-For is believed, as a JSON array; else all behind a proxy are one."""
    argon2_memory_kib: int = 19_456
    """Memory of one password hash; with two passes and one lane this is OWASP's first choice."""
    argon2_passes: int = 2
    """Passes of one password hash over that memory."""
    hashes_at_once: int = Field(default_factory=lambda: max(1, (os.cpu_count() or 2) // 2))
    """Password hashes that run at once, a thread and `argon2_memory_kib` each; half of the cores stay for the rest."""
    hashes_waiting: int = 500
    """Log-ins that may wait for a hash; more are told to come back."""
    mail_sink: Path | None = Field(default_factory=lambda: _local_mail())
    """Folder for letters where the binding `email` is not configured: data/mail of a local set."""
    reset_url: str = ""
    """What stands before the token in a letter, such as https://example.com/reset#."""
    invitation_url: str = ""
    """The same of an invitation."""


def create_app(settings: Settings, parts: Parts) -> Handlers:
    """Build the room."""
    known: list[bytes] = []

    async def master() -> bytes:
        if not known:
            known.append(master_key(await parts.secrets.get(SECRET_MASTER)))
        return known[0]

    attempts = parts.metrics.counter(
        "isa_users_attempts", "Attempts to sign up, log in, join or reset.", ["kind", "outcome"]
    )
    return Handlers(
        Desk(
            parts=parts,
            people=People(parts.sql),
            proofs=Proofs(parts.sql),
            throttles=Throttles(parts.sql),
            keyring=Keyring(
                parts.sql,
                master=master,
                clock=parts.clock,
                algorithm=settings.token_algorithm,
                token_life=settings.token_life,
                publish_before=settings.key_published_before,
            ),
            preferences=Preferences(parts.state),
            mail=Mail(parts.bindings, sink=settings.mail_sink),
            issuer=_issuer(settings),
            passwords=Passwords(memory_kib=settings.argon2_memory_kib, passes=settings.argon2_passes),
            limits=Limits(
                account=Limit(attempts=settings.attempts_per_account, window=settings.attempts_window),
                address=Limit(attempts=settings.attempts_per_address, window=settings.attempts_window),
            ),
            note_attempt=lambda kind, outcome: attempts.labels(kind, outcome).inc(),
            master=master,
            trusted_proxies=settings.trusted_proxies,
            session_life=settings.session_life,
            hashes_at_once=settings.hashes_at_once,
            hashes_waiting=settings.hashes_waiting,
            reset_url=settings.reset_url,
            invitation_url=settings.invitation_url,
        )
    )


async def workload_tokens(parts: Parts) -> tuple[str, datetime]:
    """Return this room's own workload token and its end: signed here, so that the database can be reached first."""
    issuer, at = _issuer(Settings()), parts.clock()
    private = await parts.secrets.get(SECRET_SIGNING)
    return issuer.workload(private, app_id=parts.name, at=at), at + issuer.life


def _local_mail() -> Path | None:
    home = os.environ.get("ISA_HOME")
    return Path(home) / "data" / "mail" if home else None


def _issuer(settings: Settings) -> Issuer:
    return Issuer(name=settings.issuer, audience=settings.audience, life=settings.token_life)
