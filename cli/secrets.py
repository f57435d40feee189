"""`isa secrets`: the secrets of a set, in the form in which a place that has no secret store takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer
import yaml

from runtime.layout import CHECKOUT, layout_from_environment
from runtime.processes import load_apps
from runtime.secrets import DATABASES, ROLES, ensure_secrets, ensure_tokens, generate

app = typer.Typer(help="The secrets of a set.", no_args_is_help=True)

SERVICES, DATA = "isa-cloud", "isa-data"
ENGINES = (
    "postgres-superuser",
    "postgres-tenants-admin",
    *(f"postgres-{database}-{role}" for database in DATABASES for role in ROLES),
    "redis-password",
    "nats-password",
    "minio-access-key",
    "minio-secret-key",
)
"""What the engines of charts/data and the Job that makes the databases read."""


@app.callback()
def secrets() -> None:
    """Keep `isa secrets kubernetes` a command of its group, though it is the only one."""


@app.command()
def kubernetes(
    postgres: Annotated[
        str, typer.Option(help="Where sidecars find PostgreSQL: host:port.")
    ] = "postgres.isa-data:5432",
    sslmode: Annotated[str, typer.Option(help="In libpq's words.")] = "disable",
) -> None:
    """Print Secret manifests for a cluster without a secret store: `isa secrets kubernetes | kubectl apply -f -`.

    They are generated once and kept in ISA_HOME; the second time the same are printed.
    """
    layout = layout_from_environment()
    layout.home.mkdir(parents=True, exist_ok=True)
    layout.run.mkdir(parents=True, exist_ok=True)
    apps = [each.name for each in load_apps()]
    known = {name: value for name, value in ensure_secrets(layout, apps).items() if name in generate(layout, apps)}
    host, _, port = postgres.partition(":")
    known["preferences-connection-string"] = (
        f"host={host} port={port or 5432} user=preferences_owner password={known['postgres-preferences-owner']} "
        f"dbname=preferences sslmode={sslmode} application_name=preferences"
    )
    typer.echo(yaml.safe_dump_all(manifests(known, ensure_tokens(layout, apps)), sort_keys=False), nl=False)


def manifests(known: Mapping[str, str], tokens: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    """Every Secret: each with the key of its own name, an API token with the key `token`."""
    for namespace in (SERVICES, DATA):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    for name in sorted(for_services(known)):
        yield secret(SERVICES, name, {name: known[name]})
    for service, both in tokens.items():
        yield secret(SERVICES, f"{service}-dapr-api-token", {"token": both["DAPR_API_TOKEN"]})
        yield secret(SERVICES, f"{service}-app-api-token", {"token": both["APP_API_TOKEN"]})
    for name in ENGINES:
        yield secret(DATA, name, {name: known[name]})


def for_services(known: Iterable[str]) -> set[str]:
    """What some sidecar may hand to its service, and what migrations log in with."""
    derived = yaml.safe_load((CHECKOUT / "charts" / "derived" / "dapr.yaml").read_text())
    return (set(derived["dapr"]["secrets"]) | {"smtp-password"}) & set(known)


def secret(namespace: str, name: str, values: Mapping[str, str]) -> dict[str, Any]:
    """One Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "isa-cloud"}},
        "type": "Opaque",
        "stringData": dict(values),
    }
