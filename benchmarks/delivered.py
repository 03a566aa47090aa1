"""What 300 browsers of one group get: how much at saturation, how soon at 5 a second, and with one who never reads."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time

from .crowd import Crowd, handshake, masked
from .samples import LOST, Sample
from .served import Served

CLIENTS = 300
SETTLE = 0.5
LEAD = 4.0
PATIENCE = 3.0
MIB = 1024 * 1024


async def _arrived(crowd: Crowd, process: asyncio.subprocess.Process) -> int:
    """Wait for the publisher's end and for the last delivery; how many deliveries there should have been."""
    out, _ = await process.communicate()
    wanted = int(out) * len(crowd.clients)
    crowd.last = max(crowd.last, time.perf_counter() - PATIENCE / 2)
    ended = crowd.last
    while crowd.count < wanted and time.perf_counter() - max(ended, crowd.last) < PATIENCE:
        await asyncio.sleep(0.01)
    return wanted


async def _settle(site: Served) -> None:
    """Everyone is connected. A full collection of either process in the middle would be the slowest percent."""
    await asyncio.to_thread(site.rss_collected)
    gc.collect()
    gc.freeze()
    await asyncio.sleep(SETTLE)


async def flood(site: Served, hello: str, in_flight: int, lasting: float) -> Sample:
    """Always `in_flight` publications that have not reached everybody."""
    # The reading end stays open here: what is confirmed after the publisher's end must not break a client.
    reading, writing = os.pipe()
    crowd = Crowd(site.port, hello, writing)
    await crowd.grow(CLIENTS)
    await _settle(site)
    used, begun = site.cpu(), time.perf_counter()
    async with site.publisher("flood", in_flight, lasting, stdin=reading) as process:
        while not crowd.count:
            used, begun = site.cpu(), time.perf_counter()
            await asyncio.sleep(0.001)
        wanted = await _arrived(crowd, process)
    os.close(reading)
    each = f"{in_flight} in flight"
    return {
        f"{each}, deliveries/s": crowd.count / (crowd.last - begun),
        f"{each}, CPU us/delivery": (site.cpu() - used) / crowd.count * 1e6,
        LOST: float(wanted - crowd.count),
    }


async def pace(site: Served, hello: str, publications: int) -> Sample:
    """From the call that publishes to each client's receipt, at 5 publications a second."""
    crowd = Crowd(site.port, hello)
    await crowd.grow(CLIENTS)
    await _settle(site)
    crowd.latencies = []
    used = site.cpu()
    async with site.publisher("pace", 5, publications) as process:
        wanted = await _arrived(crowd, process)
    middle, late = _quantiles(crowd.latencies)
    return {
        "at 5/s, p50 ms": middle,
        "at 5/s, p99 ms": late,
        "at 5/s, CPU us/delivery": (site.cpu() - used) / crowd.count * 1e6,
        LOST: float(wanted - crowd.count),
    }


def _quantiles(latencies: list[float]) -> tuple[float, float]:
    ordered = sorted(latencies)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


async def slow(site: Served, hello: str, flood_hello: str, lasting: float, reads: bool) -> Sample:
    """300 clients at 20 a second, beside one who is sent some 3 MB a second and never reads (unless it `reads`)."""
    crowd, witness = Crowd(site.port, hello), Crowd(site.port, flood_hello)
    await crowd.grow(CLIENTS)
    await witness.grow(1)
    await _settle(site)
    stuck, gone = None, 0.0
    async with site.publisher("beside", 20, lasting + LEAD) as process:
        ending = asyncio.ensure_future(_arrived(crowd, process))
        await asyncio.sleep(LEAD)
        crowd.latencies = []
        before = most = site.rss()
        if not reads:
            stuck = await _never_reads(site, flood_hello)
        begun, files = time.monotonic(), site.files()
        while not ending.done() or (stuck and not gone and time.monotonic() - begun < 60):
            await asyncio.sleep(0.1)
            most = max(most, site.rss())
            if stuck and not gone and site.files() < files:
                gone = time.monotonic() - begun
        wanted = await ending
    middle, late = _quantiles(crowd.latencies)
    if stuck:
        stuck.close()
    return {
        "the others, p50 ms": middle,
        "the others, p99 ms": late,
        "memory's growth, MiB": (most - before) / MIB,
        "its socket is gone after, s": gone,
        LOST: float(wanted - crowd.count),
    }


async def _never_reads(site: Served, hello: str) -> socket.socket:
    """A subscriber with a small receive buffer whose owner has gone to lunch."""
    loop, sock = asyncio.get_running_loop(), socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", site.port))
    await loop.sock_sendall(sock, handshake(site.port))
    got = b""
    while b"\r\n\r\n" not in got:
        got += await loop.sock_recv(sock, 4096)
    await loop.sock_sendall(sock, masked(hello.encode()))
    while b'"id":2' not in got:
        got += await loop.sock_recv(sock, 4096)
    return sock
