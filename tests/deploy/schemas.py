"""JSON schemas for kubeconform: Kubernetes' own, and those of every custom resource the charts use."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from runtime.layout import layout_from_environment
from tests.deploy.tools import engines, run, tool

KUBERNETES = "1.34.0"
HERE = Path(__file__).resolve().parent
WRITTEN_BY_HAND = HERE / "crds"
"""Resources whose makers publish no module: NGINX Gateway Fabric's and APISIX's, after their documentation."""
STRIMZI = {
    "io.strimzi.api.kafka.model.kafka.Kafka": "kafkas",
    "io.strimzi.api.kafka.model.nodepool.KafkaNodePool": "kafkanodepools",
    "io.strimzi.api.kafka.model.topic.KafkaTopic": "kafkatopics",
    "io.strimzi.api.kafka.model.user.KafkaUser": "kafkausers",
}


class Loader(yaml.CSafeLoader):
    """YAML whose `=` is a word and no operator, as in Prometheus' matchers."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: str(node.value))


@cache
def schema_folder() -> Path:
    """The folder of all schemas, made once for the pins of engines.toml and our own resources."""
    pins = engines()
    parts = [pins.engines[name] for name in ("kubernetes-schemas", "crds", "strimzi")]
    absent = [part.name for part in parts if not pins.folder(part.name).is_dir()]
    assert not absent, f"{', '.join(absent)}: not there yet, run `make setup-tests`."
    ours = "".join(path.read_text() for path in sorted(WRITTEN_BY_HAND.glob("*.yaml")))
    key = "-".join([*(part.key.rsplit("-", 1)[1] for part in parts), f"{hash_of(ours)}"])
    folder = layout_from_environment().cache / "schemas" / key
    with FileLock(str(layout_from_environment().cache / "schemas.lock")):
        if not folder.is_dir():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "crds").mkdir(parents=True)
            (partial / "definitions").mkdir()
            write_kubernetes(partial)
            write_strimzi(partial / "definitions")
            for number, path in enumerate(shipped()):
                shutil.copyfile(path, partial / "definitions" / f"{number:03}-{path.name}")
            for definition in read_definitions(partial / "definitions"):
                write_custom(definition, partial / "crds")
            partial.rename(folder)
    return folder


def hash_of(text: str) -> str:
    """Eight digits that change with the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def shipped() -> list[Path]:
    """The definitions of the custom resources, as files."""
    fetched = sorted(path for path in engines().folder("crds").rglob("*") if path.suffix in {".yaml", ".yml"})
    return [*fetched, *sorted(WRITTEN_BY_HAND.glob("*.yaml"))]


def custom_resource_definitions() -> list[dict[str, Any]]:
    """Every CustomResourceDefinition, as an API server takes it."""
    return list(read_definitions(schema_folder() / "definitions"))


def read_definitions(folder: Path) -> Iterator[dict[str, Any]]:
    """The definitions in the files of a folder."""
    for path in sorted(folder.iterdir()):
        for document in yaml.load_all(path.read_text(), Loader=Loader):
            if document and document.get("kind") == "CustomResourceDefinition":
                yield document


def write_kubernetes(folder: Path) -> None:
    """Kubernetes' schemas under the names kubeconform asks for, without the addresses it would look up."""
    source = engines().folder("kubernetes-schemas") / "kubernetes_validate" / "kubernetes-json-schema"
    for strictness in ("", "-strict"):
        target = folder / f"v{KUBERNETES}-standalone{strictness}"
        target.mkdir()
        for path in (source / f"v{KUBERNETES}-local{strictness}").iterdir():
            text = path.read_text().replace('"/api/_definitions.json', '"_definitions.json')
            schema = json.loads(text)
            schema.pop("$id", None)
            (target / path.name).write_text(json.dumps(schema))


def write_strimzi(folder: Path) -> None:
    """Strimzi's definitions, by its own generator."""
    jars = ":".join(str(path) for path in sorted((engines().folder("strimzi") / "lib").iterdir()))
    wanted = [f"{name}={folder / plural}.yaml" for name, plural in STRIMZI.items()]
    run(engines().java, "-cp", jars, "io.strimzi.crdgenerator.CrdGenerator", "--yaml", *wanted)


def write_custom(definition: dict[str, Any], folder: Path) -> None:
    """One file a served version, in which an unknown field is an error as in a strict API server."""
    spec = definition["spec"]
    for version in spec["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        schema.setdefault("properties", {}).update(apiVersion={"type": "string"}, kind={"type": "string"})
        schema["properties"]["metadata"] = {"type": "object"}
        name = f"{spec['group']}_{spec['names']['kind'].lower()}_{version['name']}.json"
        (folder / name).write_text(json.dumps(strict(schema)))


def strict(schema: Any) -> Any:
    """A structural schema as JSON Schema: what is unknown is refused where it is not kept."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = (key for key in schema if key != "properties" and not key.startswith("x-kubernetes-"))
    made = {key: strict(schema[key]) for key in kept}
    if "properties" in schema:
        made["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    made.pop("format", None)  # formats of Go, such as int64 and duration, are no formats of JSON Schema
    return made


def conform(manifests: str) -> list[dict[str, Any]]:
    """What kubeconform says of each document; nothing is skipped."""
    folder = schema_folder()
    done = json.loads(
        run(
            "sh", "-c", '"$@" || true', "-", tool("kubeconform"), "-strict", "-verbose", "-output", "json", "-n", "2",
            "-kubernetes-version", KUBERNETES,
            "-schema-location",
            f"{folder}/{{{{.NormalizedKubernetesVersion}}}}-standalone{{{{.StrictSuffix}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
            "-schema-location", f"{folder}/crds/{{{{.Group}}}}_{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json",
            given=manifests,
        )
    )  # fmt: skip
    found: list[dict[str, Any]] = done["resources"]
    return found
