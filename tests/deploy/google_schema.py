"""The schema of Terraform's google provider 6.50.0, out of the Python package that was generated from it.

The provider itself can be had neither as a wheel nor as a Go module that compiles. What its own validators check
(allowed words, arguments that exclude each other, lengths) is therefore not here: names, nesting, types and what is
required are.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

Type: TypeAlias = str | list[Any]

ASSEMBLY = "@cdktf/provider-google."
LIST = 2
SINGLE = 1
BLOCK = " block."


class GoogleSchema:
    """The types of the package, by their full names."""

    def __init__(self, package: Path) -> None:
        [archive] = package.glob("cdktf_cdktf_provider_google/_jsii/*.jsii.tgz")
        with tarfile.open(archive) as tar:
            member = tar.extractfile("package/.jsii")
            assert member is not None, f"{archive} has no assembly."
            self.types: dict[str, Any] = json.load(member)["types"]
        self.names: dict[tuple[str, str], str] = {}
        for name, declared in self.types.items():
            summary = declared.get("docs", {}).get("summary", "")
            if found := re.match(r"Represents a \{@link \S+/(resources|data-sources)/\S+ (\w+)\}", summary):
                self.names[found[1], found[2]] = name

    def response(self, resources: Iterable[str], data_sources: Iterable[str]) -> bytes:
        """What GetProviderSchema answers, with these types only; Terraform reports one that is used and not in it."""
        provider = self.schema(f"{ASSEMBLY}provider.GoogleProvider")
        return b"".join(
            [
                message(1, provider),
                *self.entries(2, "resources", resources),
                *self.entries(3, "data-sources", data_sources),
            ]
        )

    def entries(self, field: int, kind: str, names: Iterable[str]) -> Iterator[bytes]:
        """One entry of a map from name to schema each."""
        for name in sorted(names):
            if (kind, name) in self.names:
                schema = self.schema(self.names[kind, name])
                yield message(field, text(1, name) + message(2, schema))

    def schema(self, name: str) -> bytes:
        """The schema of a resource, a data source or the provider."""
        is_provider = name.endswith(".GoogleProvider")
        return message(2, self.block(f"{name}Config", name, is_computed=not is_provider))

    def block(self, config: str, seen: str, *, is_computed: bool = True) -> bytes:
        """A block: what may be written into it, and what the provider adds once it exists."""
        encoded, written = [], set()
        names = {terraform_name(property_) for property_ in self.types[config].get("properties", [])}
        for property_ in self.types[config].get("properties", []):
            name = terraform_name(property_)
            written.add(property_["name"])
            struct, is_many = self.struct(property_["type"])
            if struct and property_["docs"].get("summary", "").endswith(BLOCK):
                encoded.append(message(3, self.nested(name, property_, struct, is_many)))
            else:
                required = not property_.get("optional")
                write_only = name.endswith("_wo")
                is_secret = write_only or f"{name}_wo" in names  # given or not there: no provider makes one up
                encoded.append(
                    attribute(
                        name,
                        self.type_of(property_["type"]),
                        required=required,
                        optional=not required,
                        computed=is_computed and not required and not is_secret,
                        write_only=write_only,
                    )
                )
        if is_computed:
            encoded.extend(
                attribute(snake(property_["name"]), self.type_of(property_["type"]), computed=True)
                for property_ in self.types.get(seen, {}).get("properties", [])
                if is_computed_only(property_, written)
            )
        return b"".join(encoded)

    def nested(self, name: str, property_: dict[str, Any], struct: str, is_many: bool) -> bytes:
        """A nested block; one that may be there once is a list of at most one, as providers of that kind have it."""
        is_timeouts = name == "timeouts"
        return b"".join(
            [
                text(1, name),
                message(2, self.block(struct, f"{struct}OutputReference", is_computed=not is_timeouts)),
                number(3, SINGLE if is_timeouts else LIST),
                number(4, 0 if property_.get("optional") else 1),
                number(5, 0 if is_many or is_timeouts else 1),
            ]
        )

    def struct(self, declared: dict[str, Any]) -> tuple[str, bool]:
        """The structure that a type names, and whether there may be several; none is the empty string."""
        if "union" in declared:
            return next((found for one in declared["union"]["types"] if (found := self.struct(one))[0]), ("", False))
        if "collection" in declared:
            return self.struct(declared["collection"]["elementtype"])[0], True
        name = declared.get("fqn", "")
        return (name, False) if name.startswith(ASSEMBLY) else ("", False)

    def type_of(self, declared: dict[str, Any]) -> Type:
        """Terraform's type of a value. Lists and sets look alike in the package: both are lists here."""
        if "union" in declared:
            known = (one for one in declared["union"]["types"] if one.get("fqn") != "cdktf.IResolvable")
            return self.type_of(next(known))
        if "collection" in declared:
            kind = "map" if declared["collection"]["kind"] == "map" else "list"
            return [kind, self.type_of(declared["collection"]["elementtype"])]
        if "primitive" in declared:
            primitive: str = declared["primitive"]
            return {"boolean": "bool", "any": "dynamic"}.get(primitive, primitive)
        name: str = declared["fqn"]
        wrappers: dict[str, Type] = {
            "cdktf.IResolvable": "bool",
            "cdktf.StringMap": ["map", "string"],
            "cdktf.NumberMap": ["map", "number"],
            "cdktf.BooleanMap": ["map", "bool"],
            "cdktf.StringMapList": ["list", ["map", "string"]],
        }
        if name in wrappers:
            return wrappers[name]
        if name.endswith("List"):
            return ["list", self.object_of(name.removesuffix("List") + "OutputReference")]
        return self.object_of(name)

    def object_of(self, name: str) -> Type:
        """The type of a structure that is a value, not a block."""
        properties = self.types[name].get("properties", [])
        return ["object", {snake(p["name"]): self.type_of(p["type"]) for p in properties if is_computed_only(p, set())}]


def terraform_name(property_: dict[str, Any]) -> str:
    """The argument's name as Terraform writes it, from the link to its description."""
    docs = property_.get("docs", {})
    found = re.search(r"#(\w+) ", f"{docs.get('remarks', '')} {docs.get('summary', '')}")
    return found[1] if found else snake(property_["name"])


def is_computed_only(property_: dict[str, Any], written: set[str]) -> bool:
    """Whether a property of a generated class is something that the provider alone sets."""
    name = property_["name"]
    added = {"tfResourceType", "internalValue", "fqn", "terraformLabelsInput"}
    return name not in written and name not in added and not name.endswith("Input")


def snake(name: str) -> str:
    """`masterAuth` as `master_auth`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def attribute(
    name: str,
    type_: Type,
    *,
    required: bool = False,
    optional: bool = False,
    computed: bool = False,
    write_only: bool = False,
) -> bytes:
    """An attribute of a block."""
    flags = {4: required, 5: optional, 6: computed, 11: write_only}
    encoded = text(1, name) + message(2, json.dumps(type_).encode())
    return message(2, encoded + b"".join(number(field, int(flag)) for field, flag in flags.items()))


def varint(value: int) -> bytes:
    """A number in the wire format of Protocol Buffers."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def message(field: int, content: bytes) -> bytes:
    """A field that holds bytes: a message, or a value in another form."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def text(field: int, content: str) -> bytes:
    """A field that holds a string."""
    return message(field, content.encode())


def number(field: int, value: int) -> bytes:
    """A field that holds a number; zero is what a field holds that is not there."""
    return varint(field << 3) + varint(value) if value else b""
