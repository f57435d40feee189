"""The peer of the cache: a bare grpc.aio server before Redis, with no token, no tenant, no audit and no limit.

`python -m bench.peers.relay PORT REDIS_URL` serves `isa.cache.v1.Cache/Get` from Redis by redis-py, and
`/bench.Echo/Echo` from nothing at all.
"""

from __future__ import annotations

import sys

import grpc
import redis.asyncio as redis
import uvloop

from isa.cache.v1 import cache_pb2

ECHO = "/bench.Echo/Echo"


async def serve(port: int, url: str) -> None:
    """Serve until the process is ended."""
    store = redis.from_url(url)

    async def get(request: cache_pb2.GetRequest, _: grpc.aio.ServicerContext) -> cache_pb2.GetResponse:
        return cache_pb2.GetResponse(value=await store.get(request.key))

    async def echo(request: bytes, _: grpc.aio.ServicerContext) -> bytes:
        return request

    server = grpc.aio.server()
    unary = grpc.unary_unary_rpc_method_handler
    read, write = cache_pb2.GetRequest.FromString, cache_pb2.GetResponse.SerializeToString
    handlers = (
        grpc.method_handlers_generic_handler("isa.cache.v1.Cache", {"Get": unary(get, read, write)}),
        grpc.method_handlers_generic_handler("bench.Echo", {"Echo": unary(echo)}),
    )
    server.add_generic_rpc_handlers(handlers)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
