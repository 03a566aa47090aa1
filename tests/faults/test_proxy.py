"""The proxy does to connections what its names say; the other fault tests stand on this."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.proxy import FaultProxy


@pytest.fixture
async def proxy():
    async def echo(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    with FaultProxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()
    await asyncio.sleep(0.05)


async def connect(proxy):
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def ask(reader, writer, text: bytes, timeout: float = 2) -> bytes:
    writer.write(text)
    return await asyncio.wait_for(reader.readexactly(len(text)), timeout)


async def test_it_passes(proxy):
    reader, writer = await connect(proxy)
    assert await ask(reader, writer, b"hello") == b"hello"
    assert proxy.connections == 1
    writer.close()


async def test_a_blackhole_holds_and_healing_delivers_late(proxy):
    reader, writer = await connect(proxy)
    proxy.blackhole()
    with pytest.raises(TimeoutError):
        await ask(reader, writer, b"held", 0.2)
    late = await connect(proxy)
    proxy.heal()
    assert await asyncio.wait_for(reader.readexactly(4), 2) == b"held"
    assert await ask(*late, b"late") == b"late"
    writer.close()
    late[1].close()


async def test_one_direction_can_stall(proxy):
    reader, writer = await connect(proxy)
    await ask(reader, writer, b"a")
    proxy.stall("down")
    with pytest.raises(TimeoutError):
        await ask(reader, writer, b"b", 0.2)
    proxy.heal()
    assert await asyncio.wait_for(reader.readexactly(1), 2) == b"b"
    writer.close()


async def test_reset_cuts(proxy):
    reader, writer = await connect(proxy)
    await ask(reader, writer, b"a")
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        await ask(reader, writer, b"b")
    writer.close()


async def test_delay(proxy):
    reader, writer = await connect(proxy)
    proxy.delay(0.2)
    with pytest.raises(TimeoutError):
        await ask(reader, writer, b"a", 0.15)
    assert await asyncio.wait_for(reader.readexactly(1), 2) == b"a"
    writer.close()


async def test_stalled_means_back_pressure(proxy):
    _, writer = await connect(proxy)
    proxy.stall("up")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            while True:
                writer.write(b"x" * 100_000)
                await writer.drain()
    writer.transport.abort()


async def test_it_leads_elsewhere(proxy):
    async def shout(reader, writer):
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    reader, writer = await connect(proxy)
    await ask(reader, writer, b"a")
    proxy.lead_to(server.sockets[0].getsockname()[1])
    writer.close()
    reader, writer = await connect(proxy)
    assert await ask(reader, writer, b"loud") == b"LOUD"
    writer.close()
    server.close()
