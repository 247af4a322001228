#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes fastpath_coalesce_corpus: bursts whose packets may be put together.

    tests/fuzz/fastpath_coalesce_seeds.py
"""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "fastpath_coalesce_corpus"
DF = 0x4000
ACK, PSH, FIN = 0x10, 0x08, 0x01


def ip4(protocol, rest, ident=0, fragment=DF, options=b"", length=None):
    words = (20 + len(options)) // 4
    length = 20 + len(options) + len(rest) if length is None else length
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, length, ident, fragment, 64, protocol, 0)
    return head + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + options + rest


def ip6(protocol, rest):
    return struct.pack(">IHBB", 0x60000000, len(rest), protocol, 64) + b"\xfd" * 32 + rest


def tcp(sequence, payload, flags=ACK, options=b"", port=1000, ack=7):
    words = (20 + len(options)) // 4
    return struct.pack(">HHIIBBHHH", port, 80, sequence, ack, words << 4, flags, 512, 0, 0) + \
        options + bytes([sequence & 0xFF]) * payload


def udp(payload, port=2000):
    return struct.pack(">HHHH", port, 53, 8 + payload, 0) + b"u" * payload


def burst(*packets, right=True):
    return b"".join(struct.pack("<BH", right, len(p)) + p for p in packets)


def run4(count, size, **how):
    return [ip4(6, tcp(i * size, size, **how), ident=i) for i in range(count)]


SEEDS = {
    "tcp4": burst(*run4(4, 20)),
    "tcp4-options": burst(*run4(3, 9, options=b"\x01\x01\x08\x0a12345678")),
    "tcp6": burst(*[ip6(6, tcp(0xFFFFFFF0 + i * 8 & 0xFFFFFFFF, 8)) for i in range(4)]),
    "tcp4-short-last": burst(*run4(3, 16), ip4(6, tcp(48, 5), ident=3), ip4(6, tcp(53, 16), ident=4)),
    "tcp4-pushed": burst(*run4(2, 10), ip4(6, tcp(20, 10, ACK | PSH), 2), ip4(6, tcp(30, 10), 3)),
    "tcp4-fin": burst(*run4(2, 10), ip4(6, tcp(20, 10, ACK | FIN), 2)),
    "tcp4-pure-ack": burst(*run4(2, 10), ip4(6, tcp(20, 0), 2), ip4(6, tcp(20, 10), 3)),
    "tcp4-gap": burst(*run4(2, 10), ip4(6, tcp(30, 10), 2)),
    "tcp4-other-ack": burst(*run4(2, 10), ip4(6, tcp(20, 10, ack=8), 2)),
    "tcp4-no-df": burst(*[ip4(6, tcp(i * 4, 4), ident=9 + i, fragment=0) for i in range(3)],
                        ip4(6, tcp(12, 4), ident=5, fragment=0)),
    "tcp4-wrong-sum": burst(*run4(2, 10)) + burst(ip4(6, tcp(20, 10), 2), right=False)
    + burst(ip4(6, tcp(30, 10), 3)),
    "tcp4-options-of-ip": burst(*run4(2, 4), ip4(6, tcp(8, 4), options=b"\x01\x01\x01\x00"),
                                *run4(2, 4)),
    "tcp4-fragment": burst(*run4(2, 4), ip4(6, tcp(8, 4), fragment=0x2000), *run4(2, 4)),
    "tcp4-too-long-inside": burst(*run4(2, 4), ip4(6, tcp(8, 4), length=60)),
    "two-flows": burst(*[p for pair in zip(run4(3, 6), run4(3, 6, port=1001)) for p in pair]),
    "udp4": burst(*[ip4(17, udp(12)) for _ in range(4)]),
    "udp6-short-last": burst(*[ip6(17, udp(12)) for _ in range(2)], ip6(17, udp(3)), ip6(17, udp(12))),
    "udp4-wrong-sum": burst(ip4(17, udp(6)), ip4(17, udp(6))) + burst(ip4(17, udp(6)), right=False)
    + burst(ip4(17, udp(6))),
    "foreign": burst(*run4(2, 4), ip4(1, b"\x08\x00\x00\x00"), ip4(6, tcp(8, 4), 2),
                     ip6(58, b"\x80\x00\x00\x00"), ip6(0, b"\x06\x00" + bytes(6) + tcp(0, 1))),
    "cut": burst(b"", b"\x45", ip4(6, b"\0" * 19), ip6(17, b"\0" * 7), b"\x60" + bytes(38)),
}

if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    for name, content in SEEDS.items():
        (CORPUS / name).write_bytes(content)
