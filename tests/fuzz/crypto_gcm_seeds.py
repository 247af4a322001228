#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes crypto_gcm_corpus: a packet of each number of registers and of chunks, and
lengths around them.

    tests/fuzz/crypto_gcm_seeds.py
"""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "crypto_gcm_corpus"
LENGTHS = (0, 1, 15, 16, 32, 33, 48, 64, 96, 97, 160, 161, 200, 224, 225, 288, 289, 512, 592, 593,
           608, 609, 640, 1104, 1105, 1424, 2000, 4064, 4097)


def seed(suite, length, where, change):
    return struct.pack("<BBBHHB", suite, length & 1, length * 7 % 64, length, where, change) + \
        bytes(range(1, 5)) + bytes(length & 0xFF for _ in range(8))


if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    for i, length in enumerate(LENGTHS):
        for suite in range(3):
            where = (0, 8, 16, 16 + length, 31 + length)[i % 5]
            (CORPUS / f"{suite}-{length}").write_bytes(seed(suite, length, where, (suite + i) % 3))
