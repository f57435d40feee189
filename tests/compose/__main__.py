"""`make compose-test`: bring the compose file up, run the story, restart everything, look for the data, take it down.

Where an image registry is reached, with the real images, as any user who may use Docker. Where none is, with stand-in
images of the same names (standins.py), as root.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from runtime.layout import CHECKOUT, Layout, layout_from_environment
from tests.compose.engine import ComposeTestError, Docker, execute, is_registry_reached, own_engine, say
from tests.compose.standins import compose_binary, engines, make_images
from tests.compose.story import Story

PROJECT = "isa-compose-test"
PORT_BASE = int(os.environ.get("ISA_COMPOSE_TEST_PORT_BASE", "22000"))
"""Every published port is this plus its last four digits, as with ISA_PORT_BASE: beside a started set and tests."""
HEALTHY_WITHIN = 420


def compose_document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
    return document


def ports() -> dict[str, str]:
    """The variables of .env.example that publish ports, moved."""
    variables = {}
    for line in (CHECKOUT / ".env.example").read_text().splitlines():
        name, _, value = line.lstrip("# ").partition("=")
        if name.startswith("ISA_") and name.endswith("_PORT") and value.isdigit():
            variables[name] = str(PORT_BASE + int(value) % 10000)
    return variables


def images(document: dict[str, Any]) -> dict[str, str]:
    """Every image of the default profile and the base of our own -> the room that our Dockerfile builds it for."""
    tag = document["x-build-args"]["PYTHON"].rpartition(":-")[2].rstrip("}")
    found = {f"python:{tag}": ""}
    for service in document["services"].values():
        if service.get("profiles"):
            continue
        room = service.get("build", {}).get("args", {}).get("ROOM", "")
        name = service["image"].replace("${ISA_VERSION:-", "").replace("}", "")
        found[name] = found.get(name) or room
    return found


@contextmanager
def docker_for(layout: Layout, *, stand_ins: bool | None) -> Iterator[Docker]:
    """The engine to test on, with every image there or pullable."""
    if stand_ins is None:
        stand_ins = not is_registry_reached()
        say(
            "An image registry is reached: real images."
            if not stand_ins
            else "No image registry is reached: stand-ins."
        )
    if not stand_ins:
        execute(["docker", "compose", "version"])
        yield Docker(client="docker", compose_command=["docker", "compose"])
        return
    found = engines(layout)
    with own_engine(layout.cache / "compose", compose_binary(layout, found)) as docker:
        make_images(docker, layout, found, images(compose_document()))
        yield docker


def bring_up(docker: Docker, *, build: bool) -> float:
    """`docker compose up --wait`; the seconds until every service was healthy."""
    began = time.monotonic()
    flags = ["--build"] if build else ["--no-build", "--pull", "never"]
    docker.compose(
        "up", "--detach", *flags, "--wait", "--wait-timeout", str(HEALTHY_WITHIN), timeout=HEALTHY_WITHIN + 1800
    )
    return time.monotonic() - began


def wait_healthy(docker: Docker) -> float:
    """Wait until everything that should run is healthy again, and every one-shot has ended well."""
    began = time.monotonic()
    while True:
        waiting = [
            f"{service} is {state}" for service, state in states(docker).items() if state not in ("healthy", "done")
        ]
        if not waiting:
            return time.monotonic() - began
        if time.monotonic() - began > HEALTHY_WITHIN:
            raise ComposeTestError("Not healthy again: " + ", ".join(waiting))
        time.sleep(1)


def states(docker: Docker) -> dict[str, str]:
    """Each service's state: `healthy`, `done`, or what it is instead."""
    found = {}
    for container in docker.containers(PROJECT):
        config: Any = container["Config"]
        state: Any = container["State"]
        service = config["Labels"]["com.docker.compose.service"]
        if state["Status"] == "exited":
            found[service] = "done" if state["ExitCode"] == 0 else f"exited with {state['ExitCode']}"
        else:
            found[service] = state.get("Health", {}).get("Status", state["Status"])
    return found


def check_health_checks(docker: Docker) -> int:
    """Every running container has a health check that passes; the number of them."""
    running = {service: state for service, state in states(docker).items() if state != "done"}
    if unwell := {service: state for service, state in running.items() if state != "healthy"}:
        raise ComposeTestError(f"Not healthy: {unwell}")
    return len(running)


def check_one_network(docker: Docker) -> None:
    """All containers meet in one network of this project's own."""
    found = docker.run("network", "ls", "-q", "--filter", f"label=com.docker.compose.project={PROJECT}").split()
    if len(found) != 1:
        raise ComposeTestError(f"The project has {len(found)} networks.")


def check_metrics(docker: Docker) -> int:
    """Every target of compose/prometheus.yaml answers inside the network; the number of them."""
    scrape = yaml.safe_load((CHECKOUT / "compose" / "prometheus.yaml").read_text())["scrape_configs"]
    targets = [target for job in scrape for group in job["static_configs"] for target in group["targets"]]
    script = "; ".join(f"wget -q -O /dev/null http://{target}/metrics || echo {target}" for target in targets)
    image = compose_document()["services"]["prepare"]["image"]
    silent = docker.run("run", "--rm", "--network", f"{PROJECT}_default", image, "sh", "-c", script).split()
    if silent:
        raise ComposeTestError(f"No metrics from {', '.join(silent)}.")
    return len(targets)


def check_access(docker: Docker) -> None:
    """A room that has no business with another is refused by the other's sidecar, whatever it asks."""
    script = (
        '. /var/lib/isa/token.env && /tools/busybox wget -S -O /dev/null --header "dapr-api-token: $DAPR_API_TOKEN" '
        "http://127.0.0.1:$DAPR_HTTP_PORT/v1.0/invoke/$0/method/readyz 2>&1 | grep -o 'HTTP.*'"
    )
    for room, other, expected in (("notifications", "tasks", "200"), ("notifications", "audit", "403")):
        said = docker.compose("exec", "-T", room, "sh", "-c", script, other)
        if expected not in said:
            raise ComposeTestError(f"{room} asked {other} and got {said.strip()!r} instead of {expected}.")
    say("Access control: notifications may ask tasks, and is refused by audit.")


def check_logs(docker: Docker) -> None:
    """`docker compose logs` has what every room and sidecar says, one JSON object a line."""
    for service, declared in compose_document()["services"].items():
        if "build" in declared or service.endswith("-dapr"):
            lines = docker.compose("logs", "--no-color", "--no-log-prefix", service).splitlines()
            if not lines:
                raise ComposeTestError(f"{service} says nothing.")
            for number, line in enumerate(lines):
                if not line.startswith("{"):
                    odd = "\n".join(lines[number : number + 6])
                    raise ComposeTestError(f"{service} says what is no JSON:\n{odd}")
                json.loads(line)


def memory(docker: Docker) -> str:
    """What all containers hold, and the largest of them."""
    rows = []
    for line in docker.run("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines():
        name, used = line.split()[:2]
        for unit, factor in (("GiB", 1024.0), ("MiB", 1.0), ("KiB", 1 / 1024), ("kB", 1 / 1000), ("B", 1e-6)):
            if used.endswith(unit):
                rows.append((float(used.removesuffix(unit)) * factor, name.removeprefix(f"{PROJECT}-")))
                break
    largest = ", ".join(f"{name} {used:.0f}" for used, name in sorted(rows, reverse=True)[:6])
    return f"{sum(used for used, _ in rows):.0f} MiB in {len(rows)} containers; largest: {largest}"


def run_test(docker: Docker, *, build: bool, keep: bool) -> None:
    """The whole test on an engine that is there."""
    docker = replace(
        docker,
        compose_command=[
            *docker.compose_command,
            "--project-name",
            PROJECT,
            "--project-directory",
            str(CHECKOUT),
            "--progress",
            "quiet",
        ],
        environment={**ports(), "ISA_CA_BUNDLE": os.environ.get("ISA_CA_BUNDLE", "./compose/no-ca.pem")},
    )
    docker.compose("config", "--quiet")
    say("docker compose config: the file is valid.")
    docker.compose("down", "--volumes", "--remove-orphans")
    try:
        say(f"docker compose up --wait: all healthy in {bring_up(docker, build=build):.0f} s.")
        say(f"{check_health_checks(docker)} services run, each with a health check that passes.")
        story = Story(port_base=PORT_BASE, marker=secrets.token_hex(4))
        say("First: " + story.tell())
        is_demo_true = tell_demo(docker)
        check_one_network(docker)
        say(f"Prometheus would find {check_metrics(docker)} targets; the logs of every room are JSON.")
        check_logs(docker)
        check_access(docker)
        say("Memory: " + memory(docker))
        began = time.monotonic()
        docker.compose("restart")
        took = time.monotonic() - began
        say(f"docker compose restart: took {took:.0f} s, healthy {wait_healthy(docker):.0f} s later.")
        say("After the restart: " + story.check())
        say("And it goes on: " + story.go_on())
        lose_a_room_and_a_sidecar(docker)
        say("After the kills: " + story.go_on())
        docker.compose("down")
        say(f"docker compose down, and up --wait: healthy in {bring_up(docker, build=False):.0f} s.")
        say("In new containers: " + story.check())
        say("And it goes on: " + story.go_on())
        if not is_demo_true:
            raise ComposeTestError("All else held, but `isa demo` did not: see above.")
    except BaseException:
        report_trouble(docker)
        raise
    finally:
        if keep:
            say(f"Kept. Take it down with: docker compose -p {PROJECT} down -v")
        else:
            docker.compose("down", "--volumes", "--remove-orphans")
            left = docker.run("volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={PROJECT}").split()
            if left:
                raise ComposeTestError(f"`down --volumes` left {left}")
            say("docker compose down --volumes: nothing is left.")


def tell_demo(docker: Docker) -> bool:
    """`isa demo` against the containers: it needs the databases' passwords, which the secrets' volume has."""
    with TemporaryDirectory(prefix="isa-compose-test-") as home:
        docker.compose("cp", "secrets:/run/isa/secrets/secrets.json", f"{home}/secrets.json")
        environment = {**os.environ, "ISA_HOME": home, "ISA_PORT_BASE": str(PORT_BASE)}
        for name in ("POSTGRES_HOST", "POSTGRES_PORT", "KAFKA_BROKERS", "REGISTRY_URL", "LOKI_URL", "ISA_SECRETS_FILE"):
            environment.pop(name, None)
        say("isa demo:")
        done = subprocess.run([sys.executable, "-m", "cli", "demo"], cwd=CHECKOUT, env=environment, check=False)
        return done.returncode == 0


def lose_a_room_and_a_sidecar(docker: Docker) -> None:
    """SIGKILL from inside: the restart policy brings both back, into the same network namespace."""
    for service in ("tasks", "tasks-dapr"):
        process = next(
            state["Pid"]
            for container in docker.containers(PROJECT)
            for config, state in [(_any(container["Config"]), _any(container["State"]))]
            if config["Labels"]["com.docker.compose.service"] == service
        )
        execute(["kill", "-KILL", str(process)])
    time.sleep(2)
    say(f"SIGKILL of tasks and of its sidecar: healthy again after {wait_healthy(docker) + 2:.0f} s.")


def _any(value: object) -> Any:
    return value


def report_trouble(docker: Docker) -> None:
    """Say which service is unwell and what it said last, before everything is taken down."""
    try:
        for service, state in states(docker).items():
            if state not in ("healthy", "done", "created", "starting"):
                say(f"{service} is {state}:")
                say(docker.compose("logs", "--no-log-prefix", "--tail", "25", service))
        lines = docker.compose("logs", "--no-color", "--since", "5m").splitlines()
        for line in [line for line in lines if '"level":"error"' in line][-10:]:
            say(line[:1500])
    except (ComposeTestError, OSError) as error:
        say(f"And the reason could not be had: {error}")


def main(words: list[str] | None = None) -> None:
    """The command line of compose-test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--stand-ins", action=argparse.BooleanOptionalAction, default=None, help="do not ask the registry"
    )
    parser.add_argument("--keep", action="store_true", help="leave it running, where the engine is not our own")
    arguments = parser.parse_args(words)
    began = time.monotonic()
    try:
        with docker_for(layout_from_environment(), stand_ins=arguments.stand_ins) as docker:
            is_real = not docker.host
            run_test(docker, build=is_real, keep=arguments.keep and is_real)
    except ComposeTestError as error:
        raise SystemExit(f"compose-test: {error}") from None
    say(f"compose-test passed in {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
