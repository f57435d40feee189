"""How Kafka's own clients log in: those of `isa topics`, of `isa events` and of the lag, beside Dapr's components."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from kernel.settings import KafkaLogin

SECRET = "kafka-password"  # noqa: S105 - its name
MSK_LIFETIME = 900
"""Seconds that a login at Amazon's Kafka is signed for, at most."""


def client_settings(login: KafkaLogin, password: str = "") -> dict[str, Any]:
    """Return what librdkafka's settings have beside the brokers."""
    settings: dict[str, Any] = {"security.protocol": login.security_protocol}
    if login.ca:
        settings["ssl.ca.pem"] = login.ca
    if login.sasl_mechanism == "OAUTHBEARER":
        settings |= {"sasl.mechanism": login.sasl_mechanism, "oauth_cb": msk_token}
    elif login.sasl_mechanism:
        settings |= {
            "sasl.mechanism": login.sasl_mechanism,
            "sasl.username": login.sasl_username,
            "sasl.password": password or login.password,
        }
    return settings


async def room_settings(login: KafkaLogin, secret: Callable[[str], Awaitable[str]]) -> dict[str, Any]:
    """Return the same for a room, with the password of the secret store when the environment has none."""
    needs_secret = login.sasl_mechanism not in ("", "OAUTHBEARER") and not login.password
    return client_settings(login, await secret(SECRET) if needs_secret else "")


def msk_token(_config: str = "") -> tuple[str, float]:
    """Sign a login for Amazon MSK as the role of this process; return it and when it ends, by the clock.

    MSK takes a presigned URL of its action `Connect` in place of a token.
    """
    from botocore.auth import SigV4QueryAuth  # large, and of use on one cloud only
    from botocore.awsrequest import AWSRequest
    from botocore.session import get_session

    session = get_session()
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    address = f"https://kafka.{region}.amazonaws.com/"
    request = AWSRequest(method="GET", url=address, params={"Action": "kafka-cluster:Connect"})
    ends = time.time() + MSK_LIFETIME
    SigV4QueryAuth(session.get_credentials(), "kafka-cluster", region, expires=MSK_LIFETIME).add_auth(request)
    signed = f"{request.url}&User-Agent=isa-cloud"
    return base64.urlsafe_b64encode(signed.encode()).rstrip(b"=").decode(), ends
