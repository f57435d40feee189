"""`isa secrets fill`: first values go into a cloud's store, once, and are on no command line."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from cli import secrets
from runtime.layout import CHECKOUT
from runtime.redis import LOGIN

PROGRAM = """\
#!/bin/sh
for word in "$@"; do printf '%s\\037' "$word"; done >> "$LOG"
case "$*" in
  *list*) cat "$THERE"; printf '\\036' >> "$LOG" ;;
  *) if [ "${FAIL:+x}" ]; then echo "$FAIL" >&2; exit 1; fi; cat >> "$LOG"; printf '\\036' >> "$LOG" ;;
esac
"""
PLACES = {"aws": "eu-central-1", "gcp": "isa-project", "azure": "https://isa-dev-secrets.vault.azure.net/"}


@dataclass(frozen=True)
class Cloud:
    """A cloud's program that writes down what it is told."""

    name: str
    there: Path
    log: Path

    def fill(self) -> Result:
        outputs = {"cloud": self.name, "secret_prefix": "isa-dev-", "secret_store": PLACES[self.name]}
        given = json.dumps({name: {"value": value} for name, value in outputs.items()})
        return CliRunner().invoke(secrets.app, ["fill", "-"], input=given)

    def told(self) -> list[tuple[list[str], str]]:
        """Each call that wrote: its words, and what came by standard input."""
        calls = [call.split("\x1f") for call in self.log.read_text().split("\x1e") if call]
        return [(call[:-1], call[-1]) for call in calls if "list" not in call and "list-secrets" not in call]


@pytest.fixture
def cloud(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    name = request.param
    program = tmp_path / {"aws": "aws", "gcp": "gcloud", "azure": "az"}[name]
    program.write_text(PROGRAM)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    made = Cloud(name=name, there=tmp_path / "there", log=tmp_path / "log")
    made.there.write_text({"aws": '{"SecretList": []}', "gcp": "", "azure": "[]"}[name])
    made.log.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(made.log))
    monkeypatch.setenv("THERE", str(made.there))
    monkeypatch.setenv("SMTP_PASSWORD", "a mail password")
    return made


def wanted(name: str) -> set[str]:
    listed = yaml.safe_load((CHECKOUT / "terraform" / "secrets.yaml").read_text())
    return set(listed["names"]) - set(listed["not_on"].get(name, []))


@pytest.mark.parametrize("cloud", PLACES, indirect=True)
def test_every_secret_without_a_value_gets_one(cloud: Cloud) -> None:
    answer = cloud.fill()

    assert answer.exit_code == 0, answer.output
    made = {line.split(":")[0].removeprefix("isa-dev-") for line in answer.output.splitlines() if "a new value" in line}
    assert made == wanted(cloud.name) - {"kafka-password"}


@pytest.mark.parametrize("cloud", PLACES, indirect=True)
def test_no_value_is_on_a_command_line(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    made = secrets.first_values()
    monkeypatch.setattr(secrets, "first_values", lambda: made)

    cloud.fill()

    for words, given in cloud.told():
        assert given, words
        assert not [name for name, value in made.items() if len(value) > 8 and any(value in word for word in words)]
    kept = "\n".join(given for _, given in cloud.told())
    assert made["users-master-key"] in kept


@pytest.mark.parametrize("cloud", ["aws"], indirect=True)
def test_a_value_that_is_there_is_never_changed(cloud: Cloud) -> None:
    entries = [{"Name": f"isa-dev-{name}", "SecretVersionsToStages": {"1": ["AWSCURRENT"]}} for name in wanted("aws")]
    cloud.there.write_text(json.dumps({"SecretList": entries}))

    answer = cloud.fill()

    assert answer.exit_code == 0, answer.output
    assert cloud.told() == []


@pytest.mark.parametrize("cloud", ["aws"], indirect=True)
def test_an_entry_that_terraform_just_made_has_no_value(cloud: Cloud) -> None:
    cloud.there.write_text(json.dumps({"SecretList": [{"Name": f"isa-dev-{name}"} for name in wanted("aws")]}))

    assert "isa-dev-nats-password: a new value" in cloud.fill().output


@pytest.mark.parametrize("cloud", ["aws"], indirect=True)
def test_redis_is_switched_on_with_the_password_that_is_stored(cloud: Cloud) -> None:
    cloud.fill()

    calls = cloud.told()
    (at,) = [i for i, (words, _) in enumerate(calls) if "elasticache" in words]
    (user, mode), (entry, value) = calls[at], calls[at + 1]
    assert user[user.index("--user-id") + 1] == "isa-dev-default"
    assert user[user.index("--access-string") + 1] == f"on {LOGIN}"
    assert entry[entry.index("--secret-id") + 1] == "isa-dev-redis-password"
    assert json.loads(mode) == {"Type": "password", "Passwords": [value]}


@pytest.mark.parametrize("cloud", ["aws"], indirect=True)
def test_half_of_the_signing_pair_is_refused(cloud: Cloud) -> None:
    entry = {"Name": "isa-dev-workload-signing-private", "SecretVersionsToStages": {"1": ["AWSCURRENT"]}}
    cloud.there.write_text(json.dumps({"SecretList": [entry]}))

    answer = cloud.fill()

    assert answer.exit_code == 1
    assert "isa-dev-workload-signing-private" in answer.output
    assert cloud.told() == []


@pytest.mark.parametrize("cloud", ["aws"], indirect=True)
def test_a_failure_of_the_program_is_told_without_the_value(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "AccessDenied")

    answer = cloud.fill()

    assert answer.exit_code == 1
    assert "AccessDenied" in answer.output
    assert "Passwords" not in answer.output


@pytest.mark.parametrize("cloud", ["azure"], indirect=True)
def test_the_vault_is_named_as_azures_program_wants_it(cloud: Cloud) -> None:
    cloud.fill()

    words, _ = cloud.told()[0]
    assert words[:6] == ["keyvault", "secret", "set", "--vault-name", "isa-dev-secrets", "--name"]


@pytest.mark.parametrize("cloud", ["aws"], indirect=True)
def test_without_the_clouds_program_it_says_what_to_install(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    answer = cloud.fill()

    assert answer.exit_code == 1
    assert "`aws` is not on PATH" in answer.output
