"""The modules of AWS applied to moto, an imitation of AWS: that its API takes what we ask for, and what is then there.

Long: `make deploy-test` asks for it. moto cannot do EKS's add-ons, MSK and ElastiCache; those modules are left out, and
what AWS itself would say to any of this is not shown. Nothing is destroyed: the imitation ends with its process.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.layout import CHECKOUT
from tests.deploy.terraform_folders import ROOT, copy_to
from tests.deploy.tools import run, terraform_environment, tool

pytestmark = pytest.mark.skipif(os.environ.get("ISA_DEPLOY_TEST") != "1", reason="long: make deploy-test")

REGION = "eu-central-1"
MINUTES = 15


@dataclass(frozen=True)
class Aws:
    """The imitation, with what Terraform made in it."""

    endpoint: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes AWS's own program ask the imitation."""
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": REGION} | dict.fromkeys(names, "mock")

    def ask(self, *command: str) -> Any:
        """What AWS's own program answers."""
        return json.loads(run(tool("aws"), *command, "--output", "json", env=self.environment))

    def one(self, kind: str, *command: str) -> dict[str, Any]:
        """The only one of a kind."""
        (found,) = self.ask(*command)[kind]
        return found


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    place = tmp_path_factory.mktemp("moto")
    folder = copy_to(place) / "moto"
    shutil.copytree(Path(__file__).with_name("moto"), folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (place / "moto.log").open("w") as log:
        server = subprocess.Popen(
            [tool("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
        )
    made = Aws(endpoint=f"http://127.0.0.1:{port}", folder=folder)
    try:
        wait_for(made.endpoint, server)
        environment = terraform_environment()
        run(tool("terraform"), "init", "-input=false", "-no-color", cwd=folder, env=environment)
        apply = ("apply", "-auto-approve", "-no-color", "-parallelism=20", "-var", f"endpoint={made.endpoint}")
        run("timeout", str(MINUTES * 60), tool("terraform"), *apply, cwd=folder, env=environment)
        yield made
    finally:
        server.terminate()
        server.wait()


def wait_for(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    """Return when the imitation answers."""
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, "moto_server has ended: see moto.log."
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=2).close()
        except OSError:
            assert time.monotonic() < deadline, "moto_server did not answer within a minute."
            time.sleep(0.1)
        else:
            return


def test_nodes_leave_through_nat_and_databases_do_not_leave(aws: Aws) -> None:
    tables = {
        next(tag["Value"] for tag in table["Tags"] if tag["Key"] == "Name"): table
        for table in aws.ask("ec2", "describe-route-tables", "--filters", "Name=tag-key,Values=Name")["RouteTables"]
    }

    out = {
        name: [route for route in table["Routes"] if route.get("DestinationCidrBlock") == "0.0.0.0/0"]
        for name, table in tables.items()
    }
    assert [bool(route.get("GatewayId", "").startswith("igw-")) for route in out["isa-dev-public"]] == [True]
    for zone in "abc":
        assert out[f"isa-dev-private-{REGION}{zone}"][0]["NatGatewayId"].startswith("nat-")
    assert out["isa-dev-database"] == []
    assert len(tables["isa-dev-database"]["Associations"]) == 3


def test_no_security_group_of_ours_is_open_to_the_internet(aws: Aws) -> None:
    vpc = aws.one("Vpcs", "ec2", "describe-vpcs", "--filters", "Name=tag:Name,Values=isa-dev")
    groups = aws.ask("ec2", "describe-security-groups", "--filters", f"Name=vpc-id,Values={vpc['VpcId']}")[
        "SecurityGroups"
    ]

    opened = {
        group["GroupName"]: [one["CidrIp"] for rule in group["IpPermissions"] for one in rule["IpRanges"]]
        for group in groups
    }
    assert "isa-dev-postgres" in opened
    assert not [name for name, ranges in opened.items() if "0.0.0.0/0" in ranges]


def test_the_database_is_what_production_needs(aws: Aws) -> None:
    database = aws.one("DBInstances", "rds", "describe-db-instances")

    assert database["MultiAZ"]
    assert database["StorageEncrypted"]
    assert database["DeletionProtection"]
    assert not database["PubliclyAccessible"]
    assert database["BackupRetentionPeriod"] == 35
    assert database["MasterUserSecret"]["SecretArn"].startswith("arn:aws:secretsmanager:")
    (group,) = [each["DBParameterGroupName"] for each in database["DBParameterGroups"]]
    given = aws.ask("rds", "describe-db-parameters", "--db-parameter-group-name", group)["Parameters"]
    values = {each["ParameterName"]: each.get("ParameterValue") for each in given}
    assert values["rds.force_ssl"] == "1"
    assert values["temp_file_limit"] == "1048576"


def test_buckets_are_private_encrypted_and_keep_old_versions(aws: Aws) -> None:
    names = [bucket["Name"] for bucket in aws.ask("s3api", "list-buckets")["Buckets"]]
    key = aws.one("Aliases", "kms", "list-aliases", "--query", "{Aliases: Aliases[?AliasName=='alias/isa-dev-data']}")

    assert len(names) == 3
    for name in names:
        locks = aws.ask("s3api", "get-public-access-block", "--bucket", name)["PublicAccessBlockConfiguration"]
        assert all(locks.values()), name
        assert aws.ask("s3api", "get-bucket-versioning", "--bucket", name)["Status"] == "Enabled"
        (deny, *_) = json.loads(aws.ask("s3api", "get-bucket-policy", "--bucket", name)["Policy"])["Statement"]
        assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    (backups,) = [name for name in names if "-backups-" in name]
    rules = aws.ask("s3api", "get-bucket-encryption", "--bucket", backups)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"].endswith(key["TargetKeyId"])


def test_keys_rotate(aws: Aws) -> None:
    aliases = aws.ask("kms", "list-aliases")["Aliases"]
    ours = [alias["TargetKeyId"] for alias in aliases if alias["AliasName"].startswith("alias/isa-dev-")]

    assert len(ours) == 3
    assert all(aws.ask("kms", "get-key-rotation-status", "--key-id", key)["KeyRotationEnabled"] for key in ours)


def test_the_zone_and_the_web_acl_are_there(aws: Aws) -> None:
    zone = aws.one("HostedZones", "route53", "list-hosted-zones")
    records = aws.ask("route53", "list-resource-record-sets", "--hosted-zone-id", zone["Id"])["ResourceRecordSets"]
    acl = aws.one("WebACLs", "wafv2", "list-web-acls", "--scope", "REGIONAL")

    assert zone["Name"] == "dev.isa.example.com."
    assert {"CAA", "CNAME"} <= {record["Type"] for record in records}
    assert acl["Name"] == "isa-dev"


def test_every_secret_gets_its_first_value_and_keeps_it(aws: Aws, tmp_path: Path) -> None:
    listed = yaml.safe_load((ROOT / "secrets.yaml").read_text())
    expected = set(listed["names"]) - set(listed["not_on"]["aws"]) - {"smtp-password"}
    outputs = run(tool("terraform"), "output", "-json", cwd=aws.folder, env=terraform_environment())
    program = tmp_path / "aws"
    told = tmp_path / "redis"
    program.write_text(f'#!/bin/sh\ncase "$*" in *elasticache*) cat > {told} ;; *) exec {tool("aws")} "$@" ;; esac\n')
    program.chmod(0o755)
    environment = aws.environment | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ISA_HOME": str(tmp_path / "home")}
    command = (CHECKOUT / ".venv" / "bin" / "isa", "secrets", "fill", "-")

    first = run(*command, env=environment, given=outputs)
    second = run(*command, env=environment, given=outputs)

    assert first.count("a new value") == len(expected)
    assert second.count("a new value") == 0
    value = aws.ask("secretsmanager", "get-secret-value", "--secret-id", "isa-dev-redis-password")["SecretString"]
    assert json.loads(told.read_text())["Passwords"] == [value]
    key = aws.ask("secretsmanager", "describe-secret", "--secret-id", "isa-dev-redis-password")["KmsKeyId"]
    assert key.startswith("arn:aws:kms:")
