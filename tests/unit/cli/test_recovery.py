"""What a backup says of itself is checked before it is needed, and a drill misses what is missing."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import hiredis
import pytest

from cli.recovery import configuration, kafka, redis, vectors
from cli.recovery.drill import Report, row_of
from cli.recovery.folder import MANIFEST, Backup, Damaged, RecoveryError, line_of
from cli.recovery.whole import chosen, compare
from runtime.layout import Layout

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def a_backup(root: Path, store: str = "nats") -> Path:
    """Write a backup of two files."""
    backup = Backup.begin(root, store)
    (backup.folder / "sub").mkdir()
    (backup.folder / "a").write_bytes(b"first")
    (backup.folder / "sub" / "b").write_bytes(b"second")
    backup.items = 2
    backup.end()
    return backup.folder


def a_topic(root: Path, *values: bytes) -> None:
    """Write a backup of Kafka with a topic of one partition and a group that has read one record."""
    backup = Backup.begin(root, kafka.STORE)
    facts = {"partitions": 1, "config": {"cleanup.policy": "delete"}}
    backup.facts = {"topics": {"t": facts}, "groups": {"g": [["t", 0, 11]]}}
    folder = kafka.place(backup.folder, "t", 0)
    folder.mkdir(parents=True)
    lines = [
        line_of({"offset": 10 + at, "timestamp": 5, "key": None, "value": kafka.text(value), "headers": []})
        for at, value in enumerate(values)
    ]
    (folder / f"{10:020d}-{10 + len(lines):020d}.jsonl").write_text("".join(lines))
    backup.end()


def test_a_backup_that_is_whole_opens(tmp_path: Path) -> None:
    a_backup(tmp_path)

    assert Backup.open(tmp_path, "nats").items == 2


@pytest.mark.ac("phase-v:C4.2")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "a").write_bytes(b"fiRst"), "is not what was written"),
        (lambda folder: (folder / "a").write_bytes(b"firs"), "is not what was written"),
        (lambda folder: (folder / "sub" / "b").unlink(), "lacks sub/b"),
        (lambda folder: (folder / MANIFEST).unlink(), "did not end"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "is no JSON"),
    ],
    ids=["a byte", "cut short", "a file", "no manifest", "half a manifest"],
)
def test_a_damaged_backup_is_refused_and_named(tmp_path: Path, damage, said: str) -> None:
    damage(a_backup(tmp_path))

    with pytest.raises(Damaged, match=said):
        Backup.open(tmp_path, "nats")


def test_a_backup_that_is_being_written_again_is_none_until_it_ends(tmp_path: Path) -> None:
    a_backup(tmp_path)
    again = Backup.begin(tmp_path, "nats")

    with pytest.raises(Damaged, match="did not end"):
        Backup.open(tmp_path, "nats")

    again.end()
    assert Backup.open(tmp_path, "nats").folder == again.folder


def test_a_record_that_is_missing_or_changed_is_found(tmp_path: Path) -> None:
    a_topic(tmp_path / "whole", b"one", b"two")
    a_topic(tmp_path / "short", b"one")
    a_topic(tmp_path / "other", b"one", b"Two")

    assert compare(tmp_path / "whole", tmp_path / "whole", ["kafka"]) == {"kafka": []}
    assert compare(tmp_path / "whole", tmp_path / "short", ["kafka"]) == {
        "kafka": ["t/0 record 1 is missing", "t/0 group g differs"]
    }
    assert compare(tmp_path / "whole", tmp_path / "other", ["kafka"]) == {"kafka": ["t/0 record 1 differs"]}


def test_only_records_that_are_not_there_are_read_again(tmp_path: Path) -> None:
    for name in ("00000000000000000000-00000000000000000010", "00000000000000000010-00000000000000000015"):
        (tmp_path / f"{name}.jsonl").touch()

    assert kafka.resume(tmp_path, 0, 20, is_compacted=False) == 15
    assert kafka.resume(tmp_path, 12, 20, is_compacted=False) == 15
    assert [path.name[19] for path in tmp_path.iterdir()] == ["0"], "what Kafka forgot goes"
    assert kafka.resume(tmp_path, 0, 3, is_compacted=False) == 0, "a topic made anew begins again"
    assert not list(tmp_path.iterdir())


def test_a_row_forgives_what_came_after_the_backup_and_says_how_old_it_was() -> None:
    row = row_of(
        "redis",
        early={"early-1": "a", "early-2": "b"},
        final={"early-1": "a", "early-2": "changed", "late-1": "c"},
        after={"early-1": "a", "early-2": "b"},
        written=lambda _: NOW - timedelta(minutes=40),
        disaster=NOW,
        rto=timedelta(seconds=5),
    )

    assert (row.items, row.recent, row.restored, row.lost) == (3, 2, 1, 2)
    assert row.rpo == timedelta(minutes=40)
    assert row.is_good


@pytest.mark.ac("phase-v:C4.3")
@pytest.mark.parametrize(
    ("after", "age", "rto"),
    [
        ({}, timedelta(0), timedelta(0)),
        ({"early": "not as it was"}, timedelta(0), timedelta(0)),
        ({"early": "a"}, timedelta(hours=2), timedelta(0)),
        ({"early": "a", "late": "b"}, timedelta(0), timedelta(hours=5)),
    ],
    ids=["lost though backed up", "other content", "beyond the RPO", "beyond the RTO"],
)
def test_a_drill_fails_when_a_backup_lacks_something_or_a_target_is_missed(
    after: dict[str, str], age: timedelta, rto: timedelta
) -> None:
    row = row_of(
        "redis",
        early={"early": "a"},
        final={"early": "a", "late": "b"},
        after=after,
        written=lambda _: NOW - age,
        disaster=NOW,
        rto=rto,
    )

    assert not row.is_good
    assert not Report(rows=[row]).is_good


def test_a_drill_fails_when_a_check_does_not_hold() -> None:
    assert Report(checks={"the audit's chains are whole": ""}).is_good
    assert not Report(checks={"the audit's chains are whole": "broken at 3"}).is_good


def test_secrets_are_unreadable_without_their_passphrase(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / "home", cache=tmp_path)
    layout.make_folders()
    for path in configuration.kept(layout).values():
        path.write_text(json.dumps({"redis-password": "hush"}) + "\n")
    configuration.backup(layout, tmp_path / "backup", "right")
    layout.secrets.unlink()

    assert not any(b"hush" in path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file())
    with pytest.raises(RecoveryError, match="passphrase"):
        configuration.restore(layout, tmp_path / "backup", "wrong")
    configuration.restore(layout, tmp_path / "backup", "right")
    assert json.loads(layout.secrets.read_text()) == {"redis-password": "hush"}


def test_a_key_of_any_bytes_is_one_command_of_the_append_only_file() -> None:
    reader = hiredis.Reader()

    reader.feed(redis.command(b"RESTORE", b"a\r\nb \x00", b"0", b"*2\r\n"))

    assert reader.gets() == [b"RESTORE", b"a\r\nb \x00", b"0", b"*2\r\n"]


def test_the_order_of_hashes_and_sets_is_no_content() -> None:
    assert redis.digest(b"hash", [b"a", b"1", b"b", b"2"]) == redis.digest(b"hash", [b"b", b"2", b"a", b"1"])
    assert redis.digest(b"hash", [b"a", b"1", b"b", b"2"]) != redis.digest(b"hash", [b"a", b"2", b"b", b"1"])
    assert redis.digest(b"list", [b"a", b"b"]) != redis.digest(b"list", [b"b", b"a"])


def test_stores_are_restored_in_their_order_whatever_was_asked() -> None:
    assert chosen(["kafka", "postgres", "configuration"]) == ["configuration", "postgres", "kafka"]
    with pytest.raises(RecoveryError, match="no store 'mongo'"):
        chosen(["mongo"])


class Snapshots(BaseHTTPRequestHandler):
    """What Qdrant's documentation says of snapshots, on collections in memory."""

    points: ClassVar[dict[str, int]] = {}
    left: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if self.path == "/collections":
            self.answer({"collections": [{"name": name} for name in self.points]})
        else:
            name = self.path.split("/")[2]
            self.send(f"{name} {self.points[name]}".encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        name, path = self.path.split("/")[2], self.path.partition("?")[0]
        if path.endswith("/points/count"):
            self.answer({"count": self.points[name]})
        elif path.endswith("/snapshots"):
            self.left.append(name)
            self.answer({"name": f"{name}-1.snapshot"})
        else:
            assert self.path.endswith("/snapshots/upload?priority=snapshot")
            found = re.search(rb"\r\n\r\n(\S+) (\d+)\r\n", body)
            self.points[found[1].decode()] = int(found[2])
            self.answer(True)

    def do_DELETE(self) -> None:
        self.left.remove(self.path.split("/")[2])
        self.answer(True)

    def answer(self, result: object) -> None:
        self.send(json.dumps({"result": result}).encode())

    def send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_server_is_asked_for_snapshots_and_left_without_them(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Snapshots) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        Snapshots.points.update({"org-a.one": 3, "org-b.two": 5})

        made = vectors.backup_server(url, tmp_path)
        Snapshots.points.clear()
        vectors.restore_server(url, tmp_path)

        assert made.items == 8
        assert Snapshots.points == {"org-a.one": 3, "org-b.two": 5}
        assert Snapshots.left == []
        server.shutdown()
