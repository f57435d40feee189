"""Terraform is formatted, valid, true to its own tests, and alike on three clouds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from charts.derive import allowed_secrets, apps
from runtime.layout import CHECKOUT, layout_from_environment
from runtime.secrets import generate
from tests.deploy.terraform_folders import ROOT, check, copy_to, folders
from tests.deploy.tools import run, terraform_environment, tool

CLOUDS = ("aws", "gcp", "azure")
ENVIRONMENTS = ("dev", "staging", "prod")
CONTRACT: dict[str, dict[str, object]] = yaml.safe_load((ROOT / "contract.yaml").read_text())["outputs"]
SECRETS = yaml.safe_load((ROOT / "secrets.yaml").read_text())
BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
OUTPUT = re.compile(r'^output "(\w+)"', re.MULTILINE)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of terraform/ to work in."""
    return copy_to(tmp_path_factory.mktemp("terraform"))


def text_of(folder: str, pattern: str = "*.tf") -> str:
    """Every file of a folder, one after the other."""
    return "\n".join(path.read_text() for path in sorted((ROOT / folder).glob(pattern)))


def test_terraform_is_formatted() -> None:
    run(tool("terraform"), "fmt", "-check", "-recursive", "-diff", ROOT, env=terraform_environment())


@pytest.mark.ac(
    "phase-v:C1.1", "phase-v:C1.3", "phase-v:C3.3", "phase-v:C4.1", "phase-v:SEC2:3", "phase-v:SEC3:1", "phase-v:SEC3:3"
)
@pytest.mark.parametrize("folder", folders("aws", "azure"))
def test_folder_is_valid_and_passes_its_tests(folder: str, tree: Path) -> None:
    check(folder, tree)


@pytest.mark.parametrize("folder", folders(*CLOUDS))
def test_folder_has_tests_and_refuses_what_its_variables_refuse(folder: str) -> None:
    tests = text_of(folder, "tests/*.tftest.hcl")
    refusing = {name for kind, name, body in BLOCK.findall(text_of(folder)) if "validation {" in body}
    tried = set(re.findall(r"var\.(\w+)", " ".join(re.findall(r"expect_failures = \[(.*?)\]", tests, re.DOTALL))))
    repeated = {"name"} if folder.startswith("modules/") and not folder.endswith("/encryption") else set()

    assert "run " in tests, f"Write terraform/{folder}/tests/<noun>.tftest.hcl: nothing says what must be true of it."
    missing = refusing - tried - repeated
    assert not missing, f"terraform/{folder}: add a run with expect_failures for the validation of {sorted(missing)}."


@pytest.mark.parametrize("folder", folders(*CLOUDS))
def test_variables_and_outputs_say_what_they_are(folder: str) -> None:
    blocks = BLOCK.findall(text_of(folder))

    silent = [name for _, name, body in blocks if not re.search(r"^  description\s+= ", body, re.MULTILINE)]
    untyped = [name for kind, name, body in blocks if kind == "variable" and not re.search(r"^  type\s+= ", body, re.M)]

    assert not silent, f"terraform/{folder}: describe {silent}."
    assert not untyped, f"terraform/{folder}: give a type to {untyped}."


@pytest.mark.parametrize("folder", folders(*CLOUDS))
def test_modules_are_our_own_and_providers_are_pinned(folder: str) -> None:
    text = text_of(folder)
    called = re.findall(r'^module "\w+" \{\n\s+source\s+= "([^"]+)"', text, re.MULTILINE)
    asked = dict(re.findall(r'source\s+= "hashicorp/(\w+)"\n\s+version\s+= "([^"]+)"', text))

    foreign = [source for source in called if not source.startswith("../")]
    assert not foreign, f"terraform/{folder} calls {foreign}: write the module in terraform/modules."
    assert asked, f"terraform/{folder}/versions.tf names no provider."
    assert set(asked) <= {"aws", "google", "azurerm"}, (
        f"terraform/{folder}: a cloud needs one of these, not {set(asked)}."
    )
    loose = {name: pin for name, pin in asked.items() if not re.fullmatch(r"~> \d+\.\d+", pin)}
    assert not loose, f'terraform/{folder}: pin {loose} as "~> <major>.<minor>".'


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_environment_hands_over_what_the_contract_names(cloud: str, environment: str) -> None:
    outputs = set(OUTPUT.findall(text_of(f"live/{cloud}/{environment}")))

    assert outputs == set(CONTRACT), (
        f"terraform/live/{cloud}/{environment}/outputs.tf and terraform/contract.yaml differ in "
        f"{sorted(outputs ^ set(CONTRACT))}."
    )


def test_the_contract_says_what_each_name_is() -> None:
    wrong = [
        name
        for name, entry in CONTRACT.items()
        if set(entry) != {"annotation", "description"}
        or not isinstance(entry["annotation"], bool)
        or len(str(entry["description"]).split()) < 3
    ]

    assert not wrong, f"terraform/contract.yaml: give {wrong} `annotation` (true, false) and a description."


def test_the_secrets_of_an_environment_are_those_that_the_set_generates_and_reads() -> None:
    generated = set(generate(layout_from_environment(), list(apps()))) - {"preferences-connection-string"}
    tokens = {f"{app}-{whose}-api-token" for app in apps() for whose in ("dapr", "app")}
    listed = set(SECRETS["names"])

    assert listed == generated | tokens | {"kafka-password"}, (
        f"terraform/secrets.yaml and runtime/secrets.py differ in "
        f"{sorted(listed ^ (generated | tokens | {'kafka-password'}))}."
    )
    read = {name for app in apps() for name in allowed_secrets(app)}
    assert read <= listed, f"terraform/secrets.yaml lacks {sorted(read - listed)}, which apps may read."
    absent = {name for names in SECRETS["not_on"].values() for name in names} - listed
    assert not absent, f"terraform/secrets.yaml: {sorted(absent)} under not_on are no secrets."


def compose() -> dict[str, dict[str, object]]:
    """The services of docker-compose.yml."""
    found: dict[str, dict[str, object]] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]
    return found


def in_units_of_rds(value: str) -> str:
    """A size in kB or a time in ms, which are the units of PostgreSQL's own tables."""
    for unit, factor in {"GB": 1 << 20, "MB": 1 << 10, "kB": 1, "ms": 1, "s": 1000}.items():
        if re.fullmatch(rf"\d+{unit}", value):
            return str(int(value.removesuffix(unit)) * factor)
    return {"on": "1", "off": "0"}.get(value, value)


@pytest.mark.parametrize(
    ("cloud", "setting"),
    [
        ("aws", r'^    "([\w.]+)"\s+= \{ value = "(\w+)"'),
        ("gcp", r'^    "?([\w.]+)"?\s+= "(\w+)"'),
        ("azure", r'^    "?([\w.]+)"?\s+= "(\w+)"'),
    ],
)
def test_postgres_is_set_alike_in_compose_and_on(cloud: str, setting: str) -> None:
    command = compose()["postgres"]["command"]
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]  # type: ignore[attr-defined]
    ours = dict(word.split("=", 1) for word in words if "=" in word)
    found = re.findall(setting, text_of(f"modules/{cloud}/postgres", "main.tf"), re.MULTILINE)
    theirs = {name: in_units_of_rds(value) for name, value in found}
    sized = {"max_connections", "shared_buffers", "max_wal_size"}  # clouds make these from the machine's memory

    expected = {name: in_units_of_rds(value) for name, value in ours.items() if name not in sized}

    assert expected.items() <= theirs.items(), (
        f"terraform/modules/{cloud}/postgres/main.tf: docker-compose.yml gives PostgreSQL {expected}, it gets {theirs}."
    )


def test_kafka_takes_the_same_records_in_compose_and_on_msk() -> None:
    broker = compose()["kafka"]["environment"]
    msk = dict(re.findall(r'^\s+"([a-z.]+)=([^"]+)"', text_of("modules/aws/kafka"), re.MULTILINE))

    for variable in ("KAFKA_MESSAGE_MAX_BYTES", "KAFKA_REPLICA_FETCH_MAX_BYTES", "KAFKA_AUTO_CREATE_TOPICS_ENABLE"):
        name = variable.removeprefix("KAFKA_").lower().replace("_", ".")
        assert msk[name] == broker[variable], f"terraform/modules/aws/kafka/main.tf: {name} is not compose's."  # type: ignore[index]


def test_alike_roots_of_a_cloud_differ_in_sizes_only() -> None:
    for cloud in CLOUDS:
        texts = {environment: text_of(f"live/{cloud}/{environment}", "outputs.tf") for environment in ENVIRONMENTS}
        assert len(set(texts.values())) == 1, f"terraform/live/{cloud}/*/outputs.tf must be the same file."
