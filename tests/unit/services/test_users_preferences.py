"""Preferences: one document of many keys, over a state store that keeps ETags."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.events import OrgMemberRemoved
from isa_common import InvalidArgument, PreconditionFailed
from kernel import Caller, Poison, Put, Remove, Versioned
from kernel.dapr.state import State
from services.users.domain.preferences import changed, check_document, check_name
from services.users.handlers.desk import Desk
from services.users.handlers.preferences import PreferenceRoutes
from services.users.repository.preferences import Preferences

ALICE = Caller(org="org-a", user="user-alice")


class FakeState:
    """A state store in memory: transactions are whole or not at all, an empty ETag means that there must be nothing."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[object, int]] = {}
        self.writes = 0

    async def get(self, key: str) -> Versioned:
        value, version = self.rows.get(key, (None, 0))
        return Versioned(value, str(version) if version else "")

    async def get_many(self, keys: Sequence[str]) -> dict[str, Versioned]:
        return {key: await self.get(key) for key in keys}

    async def transact(self, operations: Sequence[Put | Remove]) -> None:
        for operation in operations:
            if operation.etag is not None and (await self.get(operation.key)).etag != operation.etag:
                raise PreconditionFailed("Stale.")
        for operation in operations:
            self.writes += 1
            if isinstance(operation, Put):
                self.rows[operation.key] = (operation.value, self.writes)
            else:
                self.rows.pop(operation.key, None)


@pytest.fixture
def state() -> FakeState:
    return FakeState()


@pytest.fixture
def preferences(state: FakeState) -> Preferences:
    return Preferences(cast(State, state))


async def test_a_document_is_a_key_a_name(preferences: Preferences, state: FakeState) -> None:
    await preferences.write(ALICE, await preferences.read(ALICE), {"theme": "dark", "digest.hour": 7})

    assert (await preferences.read(ALICE)).values == {"theme": "dark", "digest.hour": 7}
    assert set(state.rows) == {
        "org-a:user-alice:_index",
        "org-a:user-alice:theme",
        "org-a:user-alice:digest.hour",
    }


@pytest.mark.ac("phase-v:A2.1:1")
async def test_a_write_over_a_stale_document_changes_nothing(preferences: Preferences) -> None:
    first = await preferences.read(ALICE)
    await preferences.write(ALICE, first, {"theme": "dark"})

    with pytest.raises(PreconditionFailed):
        await preferences.write(ALICE, first, {"theme": "light", "other": True})

    assert (await preferences.read(ALICE)).values == {"theme": "dark"}


async def test_what_is_no_longer_there_is_deleted(preferences: Preferences, state: FakeState) -> None:
    await preferences.write(ALICE, await preferences.read(ALICE), {"theme": "dark", "old": 1})
    await preferences.write(ALICE, await preferences.read(ALICE), {"theme": "dark"})

    assert "org-a:user-alice:old" not in state.rows


async def test_who_left_is_forgotten_and_nobody_else(preferences: Preferences, state: FakeState) -> None:
    bob = Caller(org="org-a", user="user-bob")
    for caller in (ALICE, bob):
        await preferences.write(caller, await preferences.read(caller), {"theme": "dark"})

    await preferences.forget(ALICE)
    await preferences.forget(ALICE)

    assert (await preferences.read(ALICE)).values == {}
    assert (await preferences.read(bob)).values == {"theme": "dark"}
    assert all(key.startswith("org-a:user-bob:") for key in state.rows)


@pytest.mark.parametrize(("org", "user"), [("org-a\0", "user-bob"), ("org-a", "bob"), ("", "user-bob")])
async def test_an_event_about_nobody_is_quarantined(preferences: Preferences, org: str, user: str) -> None:
    routes = PreferenceRoutes()
    routes.desk = cast(Desk, SimpleNamespace(preferences=preferences, as_user=lambda org, user: ALICE))

    with pytest.raises(Poison):
        await routes.forget_preferences(ALICE, OrgMemberRemoved(aggregate_id="org-a", org_id=org, member_id=user))


def test_a_name_in_both_lists_is_a_mistake() -> None:
    with pytest.raises(InvalidArgument) as caught:
        changed({}, {"theme": "dark"}, ["theme"])

    assert caught.value.field == "theme"


@pytest.mark.parametrize("name", ["", "_index", "A", "a:b", "a b", "x" * 65, "ä"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_name(name)


@pytest.mark.parametrize(
    "document",
    [{f"n{i}": 1 for i in range(101)}, {"big": "x" * 8192}, {f"n{i}": "x" * 8000 for i in range(9)}],
    ids=["too many", "one too big", "together too big"],
)
def test_a_document_has_limits(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        check_document(document)


NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)


@given(
    st.dictionaries(NAMES, st.integers(), max_size=8),
    st.dictionaries(NAMES, st.integers(), max_size=8),
    st.sets(NAMES, max_size=8),
)
def test_a_change_sets_and_removes_exactly_what_it_says(
    before: dict[str, int], put: dict[str, int], remove: set[str]
) -> None:
    gone = remove - put.keys()

    after = changed(before, put, gone)

    assert all(after[name] == value for name, value in put.items())
    assert not gone & after.keys()
    assert {name: after[name] for name in before.keys() - put.keys() - gone} == {
        name: before[name] for name in before.keys() - put.keys() - gone
    }
