"""Names of tenants and transactions, and statements of COPY, with no engine at hand."""

from __future__ import annotations

import random

import pgparse
import pytest

from isa.sql.v1 import sql_pb2
from isa_common import InvalidArgument, NotFound
from kernel import Caller
from services.adapters.postgres.copies import copy_in, copy_out
from services.adapters.postgres.tenants import isolate
from services.adapters.postgres.transactions import Names

ODD = ("", "", "0", "a:", "-", "_", "./", "*", "\0", "org-", " ", "é", "e\u0301", "database\0")


def test_no_two_organisations_have_one_name_and_no_name_begins_another() -> None:
    draw = random.Random(4).getrandbits
    seen: dict[str, str] = {}
    for turn in range(1_000_000):
        org = f"org-{ODD[turn % len(ODD)]}{draw(4 * (turn % 11 + 1)):x}"
        name = isolate(b"key", org)
        assert seen.setdefault(name, org) == org
    assert {len(name) for name in seen} == {34}  # of one length, none begins another
    assert all(name.isidentifier() and name.islower() for name in seen)


async def master_key() -> bytes:
    return b"key"


async def test_the_id_of_a_transaction_opens_for_its_user_only() -> None:
    names = Names(master_key, "10.0.0.1:50061")
    owner = Caller(org="org-a", user="user-a")
    tx_id = await names.seal(owner, "key")

    assert await names.open(owner, tx_id) == ("key", "")
    assert await Names(master_key, "10.0.0.2:50061").open(owner, tx_id) == ("key", "10.0.0.1:50061")
    assert tx_id != await names.seal(owner, "key")
    for other in (
        Caller(org="org-b", user="user-a"),
        Caller(org="org-a", user="user-b"),
        Caller(org="org-a", user="user-a", workload="tasks"),
        Caller(workload="org-a user-a"),
    ):
        with pytest.raises(NotFound):
            await names.open(other, tx_id)


async def test_no_change_of_an_id_opens() -> None:
    names, owner = Names(master_key, "10.0.0.1:50061"), Caller(org="org-a", user="user-a")
    tx_id = await names.seal(owner, "key")

    for at in range(0, len(tx_id) - 1, 3):
        changed = tx_id[:at] + ("A" if tx_id[at] != "A" else "B") + tx_id[at + 1 :]
        with pytest.raises(NotFound):
            await names.open(owner, changed)


NAMES = ["a", 'a"b', "a; DROP TABLE b", "Ünï", "'", "a b", '"', "--", "/*", "$1"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_a_copy_are_names_whatever_they_hold(name: str) -> None:
    target = sql_pb2.CopyTarget(table=name, schema=name, columns=[name], options=sql_pb2.CopyOptions(null_text=name))

    (parsed,) = pgparse.parse(copy_in(target))

    copy = parsed["stmt"]["CopyStmt"]
    assert (copy["relation"]["schemaname"], copy["relation"]["relname"]) == (name, name)
    assert [each["String"]["sval"] for each in copy["attlist"]] == [name]
    assert copy["is_from"] and not copy.get("filename") and not copy.get("is_program")


@pytest.mark.parametrize("value", [*NAMES, "') TO PROGRAM 'x' --", "\\", None, True, 5])
def test_parameters_of_a_copy_are_values_whatever_they_hold(value: object) -> None:
    sql = "SELECT '$1', \"$1\", $1 /* $1 */, 'é', $1 FROM a -- $1"

    (parsed,) = pgparse.parse(copy_out(sql, [value], sql_pb2.CopyOptions()))

    targets = parsed["stmt"]["CopyStmt"]["query"]["SelectStmt"]["targetList"]
    constants = [targets[at]["ResTarget"]["val"]["A_Const"] for at in (0, 2, 4)]
    assert constants[0]["sval"]["sval"] == "$1"
    expected = None if value is None else {True: "t", 5: "5"}.get(value, value) if value != 1 else "t"
    for constant in constants[1:]:
        if expected is None:
            assert constant["isnull"]
        else:
            assert constant["sval"].get("sval", "") == expected


@pytest.mark.parametrize("text", ["SELECT 1; -- x", "SELECT 1) TO STDOUT; SELECT (1", "SELECT 1) TO PROGRAM 'x' --"])
def test_what_is_no_one_select_is_not_copied(text: str) -> None:
    with pytest.raises((InvalidArgument, pgparse.PGQueryError)):
        copy_out(text, [], sql_pb2.CopyOptions())
