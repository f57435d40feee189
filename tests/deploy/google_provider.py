"""A provider of Terraform that knows a schema and does nothing: enough for `terraform validate` and mocked tests.

Terraform starts it as it starts any provider: it prints an address and a certificate, and answers by gRPC. An answer
with nothing in it says that there is nothing to complain about.
"""

from __future__ import annotations

import base64
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SCHEMA = Path(__file__).with_name("google.schema")
SILENT = (
    "ValidateProviderConfig",
    "ValidateResourceConfig",
    "ValidateDataResourceConfig",
    "ConfigureProvider",
    "StopProvider",
)


def certificate() -> tuple[bytes, bytes, bytes]:
    """A key, its certificate, and that certificate as the handshake wants it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    der = base64.b64encode(signed.public_bytes(serialization.Encoding.DER)).rstrip(b"=")
    return private, signed.public_bytes(serialization.Encoding.PEM), der


def serve() -> None:
    """Answer until Terraform says that it is done, or has gone."""
    schema = SCHEMA.read_bytes()
    done = threading.Event()

    def shut_down(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        done.set()
        return b""

    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", -1)])
    methods = {name: grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"") for name in SILENT}
    methods["GetProviderSchema"] = grpc.unary_unary_rpc_method_handler(lambda _request, _context: schema)
    controller = {"Shutdown": grpc.unary_unary_rpc_method_handler(shut_down)}
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler("tfplugin6.Provider", methods),
            grpc.method_handlers_generic_handler("plugin.GRPCController", controller),
        ]
    )
    private, pem, der = certificate()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(private, pem)]))
    server.start()
    sys.stdout.write(f"1|6|tcp|127.0.0.1:{port}|grpc|{der.decode()}\n")
    sys.stdout.flush()
    parent = os.getppid()
    while not done.wait(timeout=5):
        if os.getppid() != parent:
            break
    server.stop(grace=None)


if __name__ == "__main__":
    if "TF_PLUGIN_MAGIC_COOKIE" not in os.environ:
        sys.exit("Terraform starts this program; there is nothing to see by itself.")
    serve()
