#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes inputs of xfrm_codec_fuzz into a directory: recorded requests, and what is wrong with some.

usage: xfrm_codec_seeds.py DIRECTORY
"""
import glob
import os
import struct
import sys

RECORDED = os.path.join(os.path.dirname(__file__), '../unit/xfrm/golden')
HEADER = 16
SA_INFO, POLICY_INFO = 224, 168
REPLAY_VAL, REPLAY_ESN_VAL, EXTRA_FLAGS, SA_DIR = 10, 23, 24, 33
TEMPLATES, POLICY_TYPE, ADDRESS_FILTER = 5, 16, 26
NOOP, ERROR, DONE, OVERRUN, FLUSHPOLICY = 1, 2, 3, 4, 0x1d  # FLUSHPOLICY: no fixed part
DIR_IN, DIR_OUT = 1, 2
# Offsets of fields behind the header.
SA_FAMILY, SA_WINDOW, SA_FLAGS, SA_SELECTOR_FAMILY, SA_SELECTOR_PREFIX = 212, 215, 216, 40, 42
POLICY_INDEX = 156
TEMPLATE_FAMILY, TEMPLATE_MODE, TEMPLATE_OPTIONAL, TEMPLATE_AUTHS = 24, 48, 50, 52
DECAP_DSCP, NOPMTUDISC, WILDRECV, ICMP, ESN = 2, 4, 8, 16, 128


def recorded(number):
    """The request that was recorded under a number."""
    [path] = glob.glob(os.path.join(RECORDED, f'{number:03}-*-req-*.bin'))
    with open(path, 'rb') as file:
        return file.read()


class Request:
    """A request to edit: fields of its fixed part, its attributes."""

    def __init__(self, number, fixed):
        message = recorded(number)
        self.header = message[4:HEADER]
        self.fixed = bytearray(message[HEADER:HEADER + fixed])
        self.attributes = {}
        at = HEADER + fixed
        while at + 4 <= len(message):
            length, kind = struct.unpack_from('<HH', message, at)
            self.attributes[kind] = bytearray(message[at + 4:at + length])
            at += (length + 3) & ~3

    def put(self, at, *values):
        self.fixed[at:at + len(values)] = bytes(values)
        return self

    def attribute(self, kind, value):
        self.attributes[kind] = bytearray(value)
        return self

    def without(self, kind):
        del self.attributes[kind]
        return self

    def template(self, at, *values):
        self.attributes[TEMPLATES][at:at + len(values)] = bytes(values)
        return self

    def content(self):
        body = bytes(self.fixed)
        for kind, value in self.attributes.items():
            body += struct.pack('<HH', 4 + len(value), kind) + value + bytes(-len(value) % 4)
        return struct.pack('<L', HEADER + len(body)) + self.header + body


def esn(words, window, sent=0, received=0, bitmap=None, direction=None, flags=ESN):
    """An SA with XFRMA_REPLAY_ESN_VAL."""
    bitmap = [0xf0f] * words if bitmap is None else bitmap
    value = struct.pack('<6L', words, sent, received, 0, 0, window)
    value += struct.pack(f'<{len(bitmap)}L', *bitmap)
    r = Request(48, SA_INFO).put(SA_FLAGS, flags).attribute(REPLAY_ESN_VAL, value)
    return r if direction is None else r.attribute(SA_DIR, bytes([direction]))


def directed(direction):
    return Request(0, SA_INFO).attribute(SA_DIR, bytes([direction]))


def seeds():
    yield from recorded_once()
    yield from recorded_answers()
    yield from odd_attributes()
    yield 'esn-bitmap', esn(2, 64, received=100)
    yield 'esn-bitmap-not-esn', esn(4, 100, sent=7, received=1000, flags=0)
    yield 'esn-many-words', esn(200, 64, bitmap=[])
    yield 'esn-cut', esn(4, 64, bitmap=[1])
    yield 'esn-two-windows', esn(2, 64).put(SA_WINDOW, 32)
    yield 'esn-window-too-large', esn(1, 64)
    yield 'esn-no-window', esn(1, 0)
    yield 'esn-missing', esn(1, 32).without(REPLAY_ESN_VAL)
    yield 'esn-out', esn(0, 0, direction=DIR_OUT)
    yield 'esn-out-window', esn(0, 1, direction=DIR_OUT)
    yield 'esn-out-received', esn(0, 0, received=1, direction=DIR_OUT)
    yield 'esn-out-bitmap', esn(1, 0, direction=DIR_OUT)
    yield 'esn-in-sent', esn(1, 32, sent=1, direction=DIR_IN)
    for name, flag in (('decap-dscp', DECAP_DSCP), ('icmp', ICMP), ('wildrecv', WILDRECV)):
        yield f'out-{name}', directed(DIR_OUT).put(SA_WINDOW, 0, flag)
    yield 'out-window', directed(DIR_OUT).put(SA_WINDOW, 32)
    yield 'out-received', (directed(DIR_OUT).put(SA_WINDOW, 0)
                           .attribute(REPLAY_VAL, struct.pack('<3L', 0, 7, 0)))
    yield 'in-nopmtudisc', directed(DIR_IN).put(SA_FLAGS, NOPMTUDISC)
    for flag in (1, 2):
        yield f'in-extra-{flag}', directed(DIR_IN).attribute(EXTRA_FLAGS, struct.pack('<L', flag))
    yield 'no-family', Request(0, SA_INFO).put(SA_FAMILY, 99, 0)
    yield 'no-selector-family', Request(0, SA_INFO).put(SA_SELECTOR_FAMILY, 99, 0)
    yield 'prefix-v4', Request(0, SA_INFO).put(SA_SELECTOR_PREFIX, 33)
    yield 'prefix-v6', Request(39, SA_INFO).put(SA_SELECTOR_PREFIX, 129)
    yield 'index-of-other-direction', Request(170, POLICY_INFO).put(POLICY_INDEX, 2)
    yield 'template-optional', Request(140, POLICY_INFO).template(TEMPLATE_OPTIONAL, 1)
    yield 'template-no-mode', Request(140, POLICY_INFO).template(TEMPLATE_MODE, 6)
    yield 'template-other-family', (Request(140, POLICY_INFO).template(TEMPLATE_MODE, 0)
                                    .template(TEMPLATE_FAMILY, 10, 0))
    yield 'template-no-family', Request(140, POLICY_INFO).template(TEMPLATE_FAMILY, 99, 0)
    yield 'template-algorithms', Request(140, POLICY_INFO).template(TEMPLATE_AUTHS, 1, 0, 0, 0)
    many = Request(140, POLICY_INFO)
    yield 'templates-many', many.attribute(TEMPLATES, many.attributes[TEMPLATES] * 7)
    yield 'policy-type-unknown', Request(140, POLICY_INFO).attribute(POLICY_TYPE, b'\7' + bytes(5))
    yield 'filter-prefix', Request(120, 0).attribute(ADDRESS_FILTER, bytes(34) + b'\xff\xff')


def recorded_once():
    """All recorded requests, but of equal ones the first."""
    seen = set()
    for path in sorted(glob.glob(os.path.join(RECORDED, '*-req-*.bin'))):
        with open(path, 'rb') as file:
            content = file.read()
        body = content[:8] + content[HEADER:]
        if body not in seen:
            seen.add(body)
            yield os.path.basename(path)[:-len('.bin')], content


def recorded_answers():
    """Of recorded replies and events those that hold something that no earlier one holds."""
    seen = set()
    for path in sorted(glob.glob(os.path.join(RECORDED, '*.bin'))):
        name = os.path.basename(path)[:-len('.bin')]
        if '-req-' in name or '-xfrmi-' in name:
            continue
        with open(path, 'rb') as file:
            content = file.read()
        shape = {(content[4:8], *kinds) for kinds in lengths(content)}
        if len(content) < 1000 and not shape <= seen:
            seen |= shape
            yield name, content


def lengths(content):
    """What could be headers of attributes in a message."""
    for at in range(HEADER, len(content) - 4, 4):
        length, kind = struct.unpack_from('<HH', content, at)
        if 4 <= length <= len(content) - at and 0 < kind < 42:
            yield length, kind


def odd_attributes():
    """Every attribute there is, and more, in several lengths; answers with every attribute."""
    for length in (0, 1, 4, 8, 40, 80, 228):
        yield f'attributes-{length}', message(FLUSHPOLICY, 1, b''.join(
            attribute(kind, bytes(range(length))) for kind in range(44)))
    error = struct.pack('<lLHHLL', -22, 20, 0x1c, 5, 7, 0)
    texts = b''.join(attribute(kind, b'a\x1b\x90text\0') for kind in range(8))
    yield 'error-capped', message(ERROR, 0x300, error + texts)
    yield 'error-whole', message(ERROR, 0x200, error + bytes(4) + texts)
    yield 'done', message(DONE, 0x202, error[:4] + texts)
    yield 'error-of-error', message(ERROR, 0, error[:4] + message(ERROR, 0, error))
    yield 'noop-overrun', message(NOOP, 0, b'') + message(OVERRUN, 0, b'')
    yield 'unknown-type', message(0x99, 0xffff, bytes(8))


def message(kind, flags, payload):
    return struct.pack('<LHHLL', HEADER + len(payload), kind, flags, 1, 2) + payload


def attribute(kind, value):
    return struct.pack('<HH', 4 + len(value), kind) + value + bytes(-len(value) % 4)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, made in seeds():
        with open(os.path.join(sys.argv[1], name), 'wb') as file:
            file.write(made if isinstance(made, bytes) else made.content())


if __name__ == '__main__':
    main()
