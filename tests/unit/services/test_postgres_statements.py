"""Names of tenants, texts of statements, and values, with no engine at hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa_common import InvalidArgument, PermissionDenied
from kernel.caller import Caller
from services.adapters.loki.codec import isolate as loki_tenant
from services.adapters.postgres.codec import (
    Catalog,
    TypeFacts,
    encode_params,
    parse_params,
    read_array,
    write_array,
)
from services.adapters.postgres.statements import check
from services.adapters.postgres.tenants import isolate, password

ORGS = st.from_regex(r"org-[a-z0-9]{1,32}", fullmatch=True)
TEXTS = st.recursive(
    st.none() | st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda items: st.lists(items, min_size=1, max_size=4),
    max_leaves=10,
)


@given(ORGS, ORGS)
def test_two_organisations_never_share_a_name_or_a_password(one: str, other: str) -> None:
    key = b"master"
    names = [(isolate(key, org), password(key, org), loki_tenant(Caller(org=org))) for org in (one, other)]

    assert (
        (one == other) == (names[0][0] == names[1][0]) == (names[0][1] == names[1][1]) == (names[0][2] == names[1][2])
    )
    assert len(names[0][0]) <= 63 and names[0][0].isidentifier()
    assert one.removeprefix("org-") not in names[0][0] or len(one) < 8


@given(ORGS, st.from_regex(r"[a-z]{1,20}(-grpc)?", fullmatch=True))
def test_no_organisation_is_the_tenant_of_a_workload(org: str, workload: str) -> None:
    assert loki_tenant(Caller(org=org)) != loki_tenant(Caller(workload=workload))


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_an_array_of_text_is_read_as_it_was_written(value: list[object]) -> None:
    catalog = Catalog()
    catalog.add(TypeFacts(25, "text"))
    catalog.add(TypeFacts(1009, "text[]", element=25))

    assert read_array(catalog.encoder(1009)(value), str) == value


def test_arrays_say_where_they_begin_and_end() -> None:
    assert read_array("{}", int) == []
    assert read_array("[2:3]={1,2}", int) == [1, 2]
    assert read_array("{{1,NULL},{3,4}}", int) == [[1, None], [3, 4]]
    assert read_array('{"a,b","NULL",NULL,"\\"q\\"","\\\\"}', str) == ["a,b", "NULL", None, '"q"', "\\"]
    assert read_array("{(1,2);(3,4)}", str, ";") == ["(1,2)", "(3,4)"]
    assert write_array("{1,2}", str) == "{1,2}"


@pytest.mark.parametrize("params", [b"{}", b"1", b"[1", b"[NaN]", b"\xff", b"[" * 100_000])
def test_parameters_that_are_no_json_array_are_refused(params: bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_params(params, "statement.params")

    assert caught.value.field == "statement.params"


def test_a_number_of_any_length_keeps_its_digits() -> None:
    digits = "123456789012345678901234567890"
    catalog = Catalog()
    catalog.add(TypeFacts(1700, "numeric"))

    assert encode_params(parse_params(f"[{digits}]".encode(), "p"), [catalog.encoder(1700)], "p") == [digits]
    assert json.loads(f"[{digits}]") == [int(digits)]


@pytest.mark.parametrize(
    ("sql", "is_read", "tables"),
    [
        ("SELECT * FROM a JOIN s.b USING (id)", True, {"a", "b"}),
        ("WITH x AS (SELECT 1 FROM a) SELECT * FROM x", True, {"a", "x"}),
        ("EXPLAIN SELECT * FROM a", True, {"a"}),
        ("INSERT INTO a SELECT * FROM b", False, {"a", "b"}),
        ("UPDATE a SET x = (SELECT max(y) FROM b)", False, {"a", "b"}),
        ("DELETE FROM a", False, {"a"}),
        ("WITH gone AS (DELETE FROM a RETURNING *) SELECT * FROM gone", False, {"a", "gone"}),
        ("SELECT * INTO c FROM a", False, {"a", "c"}),
        ("CREATE TABLE a (id int)", False, {"a"}),
        ("TRUNCATE a", False, {"a"}),
    ],
)
def test_a_statement_says_what_it_is_about(sql: str, is_read: bool, tables: set[str]) -> None:
    facts = check(sql)

    assert facts.is_read is is_read
    assert facts.tables == tables


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT (SELECT lo_get(1))",
        "SELECT * FROM a WHERE id = (SELECT pg_catalog.pg_notify('a', 'b')::text)",
        "INSERT INTO a VALUES (dblink('x', 'y'))",
        "SELECT * FROM generate_series(1, 2) AS n, LATERAL query_to_xml('SELECT 1', true, true, '')",
        "CREATE VIEW v AS SELECT set_config('a', 'b', false)",
        "CREATE TABLE a (x text DEFAULT set_config('a', 'b', false))",
        "CREATE INDEX i ON a (pg_read_file(x))",
        "UPDATE a SET x = 1 FROM pg_catalog.pg_database",
        "EXPLAIN ANALYZE CREATE TABLE x AS EXECUTE y",
    ],
)
def test_what_is_refused_is_refused_wherever_it_stands(sql: str) -> None:
    with pytest.raises(PermissionDenied):
        check(sql)


def test_a_statement_has_a_length() -> None:
    with pytest.raises(InvalidArgument):
        check(f"SELECT '{'x' * 300_000}'")
