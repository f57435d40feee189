"""The processes of the set, declared once: the engines here, the apps and their sidecars from `dapr.yaml`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from runtime import health, kafka, loki, nats, postgres, redis
from runtime.engines import Engines
from runtime.environment import own_engine_environment
from runtime.layout import CHECKOUT, ENGINE_PORTS, Layout
from runtime.supervisor import Program

Prepare = Callable[[], Awaitable[None]]

QUICK_JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xss512k", "-Djava.awt.headless=true")
SIDECAR_MEMORY = "100MiB"
ADAPTERS_FIRST = ("postgres-grpc", "loki-grpc", "users")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of the set."""

    name: str
    does: str
    kind: str
    command: tuple[str, ...]
    ports: tuple[int, ...]
    healthy: health.Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    prepare: Prepare | None = None
    user: str | None = None
    stop_signal: str = "TERM"
    stop_seconds: int = 30
    absent: str = ""
    """Why this part cannot be started; empty when it can."""

    @property
    def program(self) -> Program:
        """What the supervisor has to know."""
        return Program(
            name=self.name,
            command=self.command,
            environment=self.environment,
            user=self.user,
            stop_signal=self.stop_signal,
            stop_seconds=self.stop_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that is done once at every start, between processes; repeating it does no harm."""

    name: str
    does: str
    needs: tuple[str, ...]
    command: tuple[str, ...] = ()
    run: Prepare | None = None
    absent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """Everything that a start can start."""

    processes: Mapping[str, Process]
    steps: Mapping[str, Step]

    def with_needs(self, names: list[str]) -> list[str]:
        """These parts and all they need, in the order of declaration."""
        wanted: set[str] = set()

        def add(name: str) -> None:
            if name in wanted:
                return
            wanted.add(name)
            part = self.processes.get(name) or self.steps[name]
            for need in part.needs:
                add(need)

        for name in names:
            add(name)
        return [name for name in (*self.processes, *self.steps) if name in wanted]


def declare(
    layout: Layout, engines: Engines, secrets: Mapping[str, str], tokens: Mapping[str, Mapping[str, str]]
) -> Set:
    """The whole set."""
    processes = [
        *engine_processes(layout, engines, secrets),
        *app_processes(layout, engines, tokens),
    ]
    return Set(
        processes={process.name: process for process in processes},
        steps={step.name: step for step in steps(layout, engines, secrets)},
    )


def engine_processes(layout: Layout, engines: Engines, secrets: Mapping[str, str]) -> list[Process]:
    """PostgreSQL, Kafka, Loki, Redis, NATS, MinIO, Dapr's scheduler and the schema registry."""
    port, java = layout.engine_port, str(engines.java)

    async def prepare_postgres() -> None:
        await postgres.prepare(layout, engines, secrets)

    async def prepare_kafka() -> None:
        await kafka.prepare(layout, engines)

    async def prepare_loki() -> None:
        loki.prepare(layout)

    async def prepare_redis() -> None:
        redis.prepare(layout, secrets)

    async def prepare_nats() -> None:
        nats.prepare(layout, secrets)

    return [
        Process(
            name="postgres",
            does="databases of the rooms",
            kind="engine",
            command=(
                str(postgres.binaries(engines) / "bin" / "postgres"), "-D", str(postgres.data_folder(layout)),
                "-p", str(port("postgres")), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
                "-c", "shared_buffers=64MB", "-c", "max_connections=200", "-c", "jit=off", "-c", "max_wal_size=512MB",
                "-c", "log_min_messages=warning", "-c", "log_line_prefix=%m [%p] %u@%d ",
                "-c", "idle_in_transaction_session_timeout=60s",
                # what a tenant's statement could otherwise take from all others: the disk, and the table of locks
                "-c", "temp_file_limit=1GB", "-c", "max_locks_per_transaction=256",
            ),
            environment={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
            ports=(port("postgres"),),
            healthy=health.postgres(port("postgres")),
            prepare=prepare_postgres,
            user=postgres.account().name,
            stop_signal="INT",
        ),
        Process(
            name="kafka",
            does="event log",
            kind="engine",
            command=(java, "-Xms128m", "-Xmx320m", *QUICK_JVM, *shared_classes(layout, engines, "kafka"),
                     *kafka.LOGGING, "-cp", kafka.classpath(engines), "kafka.Kafka", str(kafka.configuration(layout))),
            ports=(port("kafka"), port("kafka-controller")),
            healthy=health.kafka(port("kafka")),
            prepare=prepare_kafka,
            stop_seconds=60,
        ),
        Process(
            name="loki",
            does="searchable log",
            kind="engine",
            command=(str(engines.binary("loki", "loki")), "-config.file", str(loki.configuration(layout))),
            environment={"GOMEMLIMIT": "300MiB"},
            ports=(port("loki"), port("loki-grpc")),
            healthy=health.http(f"http://{layout.address('loki')}/ready"),
            prepare=prepare_loki,
        ),
        Process(
            name="redis",
            does="cache",
            kind="engine",
            command=(str(engines.redis), str(redis.configuration(layout))),
            ports=(port("redis"),),
            healthy=health.redis(port("redis"), secrets["redis-password"]),
            prepare=prepare_redis,
        ),
        Process(
            name="nats",
            does="streams",
            kind="engine",
            command=(str(engines.binary("nats", "nats-server")), "--config", str(nats.configuration(layout))),
            environment={"GOMEMLIMIT": "150MiB"},
            ports=(port("nats"), port("nats-monitor")),
            healthy=health.http(f"http://{layout.address('nats-monitor')}/healthz"),
            prepare=prepare_nats,
        ),
        Process(
            name="minio",
            does="objects",
            kind="engine",
            command=(
                str(engines.binary("minio", "minio")), "server", "--quiet",
                "--certs-dir", str(layout.run / "minio"), "--address", layout.address("minio"),
                str(layout.data / "minio"),
            ),
            environment={
                "MINIO_ROOT_USER": secrets["minio-access-key"],
                "MINIO_ROOT_PASSWORD": secrets["minio-secret-key"],
                "MINIO_BROWSER": "off",
                "MINIO_UPDATE": "off",
                "GOMEMLIMIT": "300MiB",
            },
            ports=(port("minio"),),
            healthy=health.http(f"http://{layout.address('minio')}/minio/health/cluster"),
        ),
        Process(
            name="scheduler",
            does="Dapr's jobs",
            kind="engine",
            command=(
                str(engines.binary("dapr", "scheduler")), "--mode", "standalone", "--id", "dapr-scheduler-server-0",
                "--listen-address", "127.0.0.1", "--port", str(port("scheduler")),
                "--healthz-listen-address", "127.0.0.1", "--healthz-port", str(port("scheduler-health")),
                "--metrics-listen-address", "127.0.0.1", "--metrics-port", str(port("scheduler-metrics")),
                "--etcd-data-dir", str(layout.data / "scheduler"),
                "--etcd-client-listen-address", "127.0.0.1", "--etcd-client-port", str(port("scheduler-etcd")),
                "--etcd-initial-cluster", f"dapr-scheduler-server-0=http://{layout.address('scheduler-etcd-peer')}",
                "--override-broadcast-host-port", layout.address("scheduler"), "--log-as-json",
            ),
            environment={"GOMEMLIMIT": "120MiB"},
            ports=tuple(
                port(name)
                for name in ("scheduler", "scheduler-health", "scheduler-metrics", "scheduler-etcd",
                             "scheduler-etcd-peer")
            ),
            healthy=health.http(f"http://{layout.address('scheduler-health')}/healthz"),
        ),
        Process(
            name="registry",
            does="schema registry",
            kind="engine",
            command=(
                java, "-Xms64m", "-Xmx256m", *QUICK_JVM, *shared_classes(layout, engines, "registry"),
                "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
                "-jar", str(engines.folder("registry") / "quarkus-run.jar"),
            ),
            environment={
                "QUARKUS_HTTP_HOST": "127.0.0.1",
                "QUARKUS_HTTP_PORT": str(port("registry")),
                "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
                "QUARKUS_MANAGEMENT_PORT": str(port("registry-management")),
                "APICURIO_STORAGE_KIND": "sql",
                "APICURIO_STORAGE_SQL_KIND": "postgresql",
                "APICURIO_DATASOURCE_URL": f"jdbc:postgresql://{layout.address('postgres')}/registry",
                "APICURIO_DATASOURCE_USERNAME": "registry_owner",
                "APICURIO_DATASOURCE_PASSWORD": secrets["postgres-registry-owner"],
                "APICURIO_DATASOURCE_JDBC_INITIAL_SIZE": "2",
                "APICURIO_DATASOURCE_JDBC_MIN_SIZE": "2",
                "APICURIO_DATASOURCE_JDBC_MAX_SIZE": "5",
                "QUARKUS_LOG_LEVEL": "WARN",
            },
            ports=(port("registry"), port("registry-management")),
            healthy=health.http(f"http://{layout.address('registry')}/apis/ccompat/v7/subjects"),
            needs=("databases",),
        ),
    ]  # fmt: skip


def shared_classes(layout: Layout, engines: Engines, name: str) -> tuple[str, ...]:
    """Java writes the classes it loaded at its first stop, and starts faster from them afterwards."""
    folder = layout.cache / "classes"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{engines.engines[name].key}.jsa"
    return (
        "-XX:+AutoCreateSharedArchive",
        f"-XX:SharedArchiveFile={archive}",
        "-Xlog:cds=off",
        "-Xlog:cds+dynamic=off",
    )


def steps(layout: Layout, engines: Engines, secrets: Mapping[str, str]) -> list[Step]:
    """What has to be done between engines and apps."""

    async def databases() -> None:
        await postgres.create_databases(layout, engines, secrets)

    return [
        Step(name="databases", does="roles and databases of the rooms", needs=("postgres",), run=databases),
        command_step("migrate", "tables of the rooms", needs=("databases",), arguments=("migrate",)),
        command_step("topics", "topics and schemas", needs=("kafka", "registry"), arguments=("topics", "apply")),
    ]


def command_step(name: str, does: str, *, needs: tuple[str, ...], arguments: tuple[str, ...]) -> Step:
    """A step that is a command of ours."""
    exists = (CHECKOUT / "cli" / f"{name}.py").exists()
    return Step(
        name=name,
        does=does,
        needs=needs,
        command=(sys.executable, "-m", "cli", *arguments),
        absent="" if exists else f"cli/{name}.py is not there",
    )


@dataclass(frozen=True, slots=True)
class App:
    """One app of dapr.yaml, with what it shares with the others filled in."""

    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The app-id."""
        return str(self.values["appID"])

    @property
    def is_grpc(self) -> bool:
        """Whether Dapr calls the app by gRPC."""
        return bool(self.values["appProtocol"] == "grpc")

    @property
    def engine(self) -> str | None:
        """The engine that an adapter stands before, and is named after; none when it has it in itself."""
        name = self.name.removesuffix("-grpc")
        return name if self.is_grpc and name in ENGINE_PORTS else None

    @property
    def absent(self) -> str:
        """Why it cannot be started; empty when it can."""
        package = self.command[-1]
        exists = (CHECKOUT / package.replace(".", "/") / "app.py").exists()
        return "" if exists else f"{package} has no app.py"

    @property
    def health_port(self) -> int:
        """Where it answers `/readyz`: a gRPC app beside its metrics."""
        return int(self.environment.get("METRICS_PORT", self.values["appPort"]))

    @property
    def command(self) -> list[str]:
        """How the app is started."""
        return [str(word) for word in self.values["command"]]

    @property
    def environment(self) -> dict[str, str]:
        """What dapr.yaml sets for it."""
        return {name: str(value) for name, value in self.values["env"].items()}


def load_apps(path: Path = CHECKOUT / "dapr.yaml") -> list[App]:
    """The apps of dapr.yaml, in its order."""
    document = yaml.safe_load(path.read_text())
    common = document.get("common", {})
    return [App({**common, **app, "env": {**common.get("env", {}), **app.get("env", {})}}) for app in document["apps"]]


def app_address(layout: Layout, app_id: str) -> str:
    """`127.0.0.1:port` of an app, where it really listens."""
    (port,) = (int(app.values["appPort"]) for app in load_apps() if app.name == app_id)
    return f"127.0.0.1:{layout.port(port)}"


def app_processes(layout: Layout, engines: Engines, tokens: Mapping[str, Mapping[str, str]]) -> list[Process]:
    """Each app and its sidecar."""
    found = []
    for app in load_apps():
        environment = {
            **app.environment,
            **own_engine_environment(layout),
            "ISA_NAME_RESOLUTION": str(layout.run / "names.db"),
            "ISA_TRACE_SAMPLING": os.environ.get("ISA_TRACE_SAMPLING", "1" if otlp_endpoint() else "0"),
            "ISA_OTLP_ENDPOINT": otlp_endpoint(),
            **{name: value for name, value in os.environ.items() if name.startswith(("OTEL_", "SMTP_"))},
            **({"SMTP_PORT": os.environ.get("SMTP_PORT", "587")} if os.environ.get("SMTP_HOST") else {}),
            **tokens[app.name],
        }
        found.append(sidecar(layout, engines, app, environment))
        found.append(room(layout, app, environment))
    return found


def consul() -> dict[str, str]:
    """Where Consul is, when apps are to find each other by it; else nothing, and they do by a file."""
    if os.environ.get("ISA_CLOUD_CONSUL_ENABLED", "").lower() not in ("true", "1"):
        return {}
    return {
        "ISA_CLOUD_CONSUL_HOST": os.environ.get("ISA_CLOUD_CONSUL_HOST", "127.0.0.1"),
        "ISA_CLOUD_CONSUL_PORT": os.environ.get("ISA_CLOUD_CONSUL_PORT", "8500"),
        "CONSUL_HTTP_TOKEN": os.environ.get("CONSUL_HTTP_TOKEN", ""),
    }


def otlp_endpoint() -> str:
    """`host:port` of OpenTelemetry's standard setting; empty when traces go nowhere."""
    return os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").removeprefix("http://").rstrip("/")


def sidecar(layout: Layout, engines: Engines, app: App, environment: Mapping[str, str]) -> Process:
    """daprd, told what `dapr run -f` would tell it, and to listen to this machine only."""
    values = app.values
    http, grpc, internal, metrics = (
        layout.port(values[name]) for name in ("daprHTTPPort", "daprGRPCPort", "daprInternalGRPCPort", "metricsPort")
    )
    resources = [*values["resourcesPaths"], *(["components/optional"] if os.environ.get("SMTP_HOST") else [])]
    command = [
        str(engines.binary("dapr", "daprd")), "--app-id", app.name,
        "--app-port", str(layout.port(values["appPort"])), "--app-protocol", values["appProtocol"],
        "--dapr-http-port", str(http), "--dapr-grpc-port", str(grpc), "--dapr-internal-grpc-port", str(internal),
        "--metrics-port", str(metrics), "--metrics-listen-address", "127.0.0.1",
        "--dapr-listen-addresses", values["apiListenAddresses"], "--dapr-internal-grpc-listen-address", "127.0.0.1",
        "--config", str(CHECKOUT / values["configFilePath"]),
        *(("--config", str(CHECKOUT / "components" / "consul" / "config.yaml")) if consul() else ()),
        "--scheduler-host-address", layout.address("scheduler"), "--placement-host-address", "",
        "--max-body-size", values["maxBodySize"], "--read-buffer-size", values["readBufferSize"],
        "--enable-app-health-check", "--app-health-check-path", values["appHealthCheckPath"],
        "--app-health-probe-interval", str(values["appHealthProbeInterval"]),
        "--app-health-probe-timeout", str(values["appHealthProbeTimeout"]),
        "--app-health-threshold", str(values["appHealthThreshold"]),
        "--dapr-graceful-shutdown-seconds", "30", "--log-level", values["logLevel"], "--log-as-json",
    ]  # fmt: skip
    for path in resources:
        command += ["--resources-path", str(CHECKOUT / path)]
    return Process(
        name=f"{app.name}-dapr",
        does=f"sidecar of {app.name}",
        kind="sidecar",
        command=tuple(command),
        environment={
            **environment,
            **consul(),
            "GOMEMLIMIT": SIDECAR_MEMORY,
            "DAPR_HOST_IP": "127.0.0.1",
            "DAPR_INTERNAL_GRPC_PORT": str(internal),
            "HEALTH_PORT": str(layout.port(app.health_port)),
        },
        ports=(http, grpc, internal, metrics),
        healthy=health.http(f"http://127.0.0.1:{http}/v1.0/healthz/outbound"),
        needs=("kafka", "scheduler", "databases"),
        stop_seconds=35,
        absent=app.absent,
    )


def room(layout: Layout, app: App, environment: Mapping[str, str]) -> Process:
    """The app itself."""
    values = app.values
    port = layout.port(values["appPort"])
    ports = [port]
    own = {
        "APP_ID": app.name,
        "APP_PORT": str(port),
        "DAPR_HTTP_PORT": str(layout.port(values["daprHTTPPort"])),
        "DAPR_GRPC_PORT": str(layout.port(values["daprGRPCPort"])),
        "ISA_HOME": str(layout.home),
        "ISA_SPOOL_DIR": str(layout.data / "spool" / app.name),
        "LOG_LEVEL": os.environ.get("LOG_LEVEL", "INFO"),
        "PYTHONUNBUFFERED": "1",
    }
    health_port = layout.port(app.health_port)
    if app.is_grpc:
        own["METRICS_PORT"] = str(health_port)
        ports.append(health_port)
    command = [sys.executable if word == "python" else word for word in app.command]
    first: tuple[str, ...]
    if app.is_grpc:
        first = (app.engine,) if app.engine else ()
    else:
        first = ADAPTERS_FIRST[: ADAPTERS_FIRST.index(app.name)] if app.name in ADAPTERS_FIRST else ADAPTERS_FIRST
    return Process(
        name=app.name,
        does=app.command[-1],
        kind="app",
        command=tuple(command),
        environment={**environment, **own},
        ports=tuple(ports),
        healthy=health.http(f"http://127.0.0.1:{health_port}/readyz"),
        needs=(f"{app.name}-dapr", "migrate", "topics", *first),
        stop_seconds=40,
        absent=app.absent,
    )


def as_shell(environment: Mapping[str, str]) -> str:
    """`NAME=value` words for a shell."""
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(environment.items()))
