#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the first inputs of xfrm_server_fuzz into a directory, made of recorded requests.

usage: xfrm_server_seeds.py DIRECTORY
"""
import os
import struct
import sys

from xfrm_dispatch_seeds import recorded

(CONNECTS, OPENS, ATTACHES, ASKS, READS, WRITES, CONTROLS, SAYS_ANYTHING, PASSES_ANYTHING, CLOSES,
 WAITS, SHARES, ASKS_ON_SLATE, SCRAWLS, PASSES_AS, REOPENS) = range(16)
BIND, JOIN, LEAVE, OPTION = 4, 5, 6, 7
CAP_ACK, EXT_ACK = 10, 11
SIDE, DATA = 0, 1  # our first two ends, where the first has opened the second
GROUPS = range(1, 10)


def step(action, end=SIDE, content=b''):
    return struct.pack('<BBH', action, end, len(content)) + content


def opened(port_id=0, groups=0, options=0, edition=0, end=SIDE, action=OPENS):
    return step(action, end, struct.pack('<5L', edition, port_id, groups, options, 0))


def control(kind, argument, value=0):
    return step(CONTROLS, SIDE, struct.pack('<LHHLLL', 0, 0, kind, 1, argument, value))


def asks(*requests):
    return b''.join(step(ASKS, DATA, request) for request in requests)


def seeds():
    new_sa, other_sa, dump_sas, new_policy = map(recorded, (0, 3, 115, 140))
    everything = b''.join(control(JOIN, group) for group in GROUPS)
    yield 'requests', opened() + everything + asks(new_sa, other_sa, dump_sas, new_policy)
    yield 'events', (opened() + control(BIND, 0, 0xff) + asks(new_sa) + control(LEAVE, 5) +
                     asks(other_sa) + step(WAITS))
    yield 'options', (opened() + control(OPTION, CAP_ACK, 1) + control(OPTION, EXT_ACK, 1) +
                      asks(new_sa, new_sa) + control(OPTION, 99, 1) + control(99, 0))
    yield 'again', opened(4711, 0x10, 1 << CAP_ACK, 1) + asks(new_sa) + control(BIND, 4711)
    yield 'port', (opened(4711, edition=1) + asks(new_sa) + step(CONNECTS) +
                   opened(4711, edition=1, end=2) + step(CONNECTS) + opened(end=4) +
                   step(CONTROLS, 4, struct.pack('<LHHLLL', 0, 0, BIND, 1, 4711, 0)))
    yield 'second-process', (opened() + step(CONNECTS) + opened(0, 4, 2, 2, 2, REOPENS) +
                             asks(new_sa) + step(CLOSES, SIDE))
    yield 'files', (opened() + step(READS, DATA, b'/proc/net/xfrm_stat') +
                    step(READS, DATA, b'/proc/sys/net/core/xfrm_acq_expires') +
                    step(WRITES, DATA, b'/proc/sys/net/core/xfrm_acq_expires\x0042\n') +
                    step(WRITES, DATA, b'no zero') + step(READS, DATA, b'/etc/passwd'))
    yield 'older-way', (step(ATTACHES) + step(ASKS, SIDE, new_sa) + step(ATTACHES) * 9 +
                        step(ASKS, SIDE, dump_sas))
    yield 'several', step(CONNECTS) * 3 + opened() + step(CLOSES, 0) + step(CLOSES, 2) + step(WAITS)
    yield 'slates', (opened() + step(SHARES, DATA) + step(ASKS_ON_SLATE, DATA, new_sa) +
                     step(ASKS_ON_SLATE, DATA, dump_sas) + control(JOIN, 3) +
                     step(ASKS_ON_SLATE, DATA, other_sa) + step(ASKS_ON_SLATE, DATA, bytes(4000)) +
                     step(SCRAWLS, DATA, struct.pack('<5L', 1, 7, 1, 1, 0xffffffff) + bytes(100)) +
                     step(SHARES, DATA, b'unsealed'))
    yield 'nonsense', (step(SAYS_ANYTHING, SIDE, b'hello') + step(CONNECTS) +
                       step(PASSES_ANYTHING, SIDE, b'hello') + step(CONNECTS) +
                       opened() + step(SAYS_ANYTHING, DATA, b'hello'))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, content in seeds():
        with open(os.path.join(sys.argv[1], name), 'wb') as file:
            file.write(content)


if __name__ == '__main__':
    main()
