"""Secrets of the set on this machine, encrypted by a passphrase that is kept elsewhere. The rest is in git.

A cloud's secret store has its own copies in another region.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cli.recovery.folder import Backup, RecoveryError
from runtime.layout import Layout
from runtime.secrets import write_private

STORE = "configuration"
FILE = "secrets.encrypted"
SALT, NONCE = 16, 12


def kept(layout: Layout) -> dict[str, Path]:
    """Return the files that a set cannot be started again without, by the names they have in a backup."""
    return {"secrets.json": layout.secrets, "tokens.json": layout.run / "tokens.json"}


def cipher(passphrase: str, salt: bytes) -> AESGCM:
    """Return what encrypts and decrypts; slow to try passphrases with."""
    return AESGCM(hashlib.scrypt(passphrase.encode(), salt=salt, n=1 << 15, r=8, p=1, maxmem=64 << 20, dklen=32))


def backup(layout: Layout, root: Path, passphrase: str) -> Backup:
    """Write the secrets, encrypted."""
    backup = Backup.begin(root, STORE)
    found = {name: path.read_text() for name, path in kept(layout).items()}
    salt, nonce = os.urandom(SALT), os.urandom(NONCE)
    sealed = cipher(passphrase, salt).encrypt(nonce, json.dumps(found).encode(), None)
    (backup.folder / FILE).write_bytes(salt + nonce + sealed)
    backup.items = sum(len(json.loads(text)) for text in found.values())
    return backup.end()


def restore(layout: Layout, root: Path, passphrase: str) -> Backup:
    """Put the secrets where the set finds them."""
    backup = Backup.open(root, STORE)
    sealed = (backup.folder / FILE).read_bytes()
    salt, nonce, rest = sealed[:SALT], sealed[SALT : SALT + NONCE], sealed[SALT + NONCE :]
    try:
        found = json.loads(cipher(passphrase, salt).decrypt(nonce, rest, None))
    except InvalidTag:
        raise RecoveryError("The passphrase is not the one that the secrets were encrypted with.") from None
    layout.make_folders()
    for name, path in kept(layout).items():
        write_private(path, found[name].rstrip("\n"))
    return backup
