"""`isa secrets`: the secrets of a set, for a cloud's secret store or for a cluster that has none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer
import yaml

from cli.secret_stores import STORES, StoreError
from runtime.layout import CHECKOUT, layout_from_environment
from runtime.processes import load_apps
from runtime.secrets import DATABASES, ROLES, ensure_secrets, ensure_tokens, generate, token

app = typer.Typer(help="The secrets of a set.", no_args_is_help=True)

SERVICES, DATA = "isa-cloud", "isa-data"
PAIR = {"workload-signing-private", "workload-signing-public"}
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


@app.command()
def fill(
    outputs: Annotated[typer.FileText, typer.Argument(help="What `terraform output -json` printed; - for stdin.")],
) -> None:
    """Give every secret of an environment that has no value yet a fresh one; what has one is never changed.

    Uses the cloud's own program (aws, gcloud, az), logged in as an administrator:
    `terraform output -json | isa secrets fill -`.
    """
    platform = {name: output["value"] for name, output in json.load(outputs).items()}
    cloud, prefix = platform["cloud"], platform["secret_prefix"]
    listed = yaml.safe_load((CHECKOUT / "terraform" / "secrets.yaml").read_text())
    names = sorted(set(listed["names"]) - set(listed["not_on"].get(cloud, [])))
    try:
        store = STORES[cloud](place=platform["secret_store"], prefix=prefix)
        filled = store.filled(names)
        if len(filled & PAIR) == 1:
            (lone,) = filled & PAIR
            raise StoreError(f"Only {prefix}{lone} has a value, and its other half cannot be made from it: remove it.")
        values = first_values()
        for name in (name for name in names if name not in filled):
            if values.get(name):
                store.put(name, values[name])
                typer.echo(f"{prefix}{name}: a new value")
            else:
                typer.echo(f"{prefix}{name}: left empty, for you to fill (smtp-password: set SMTP_PASSWORD)")
    except StoreError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{len(filled)} of {len(names)} had a value before.")


def first_values() -> dict[str, str]:
    """A value for each secret that can be made up."""
    apps = [each.name for each in load_apps()]
    values = generate(layout_from_environment(), apps) | {"smtp-password": os.environ.get("SMTP_PASSWORD", "")}
    return values | {f"{app}-{whose}-api-token": token() for app in apps for whose in ("dapr", "app")}


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
