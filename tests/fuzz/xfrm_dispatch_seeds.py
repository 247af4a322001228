#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the first inputs of xfrm_dispatch_fuzz into a directory, made of recorded requests.

usage: xfrm_dispatch_seeds.py DIRECTORY
"""
import glob
import os
import struct
import sys

RECORDED = os.path.join(os.path.dirname(__file__), '../unit/xfrm/golden')
CAPPED_ACKS, EXTENDED_ACKS, FINISH_DUMPS = 1, 2, 4
ALL = CAPPED_ACKS | EXTENDED_ACKS | FINISH_DUMPS
IN_ONE_SESSION = 12
XFRM_MSG_DELPOLICY = 20
POLICY_INDEX_AT = 16 + 156  # behind the headers of netlink and the policy


def recorded(number):
    """The request that was recorded under a number."""
    [path] = glob.glob(os.path.join(RECORDED, f'{number:03}-*-req-*.bin'))
    with open(path, 'rb') as file:
        return file.read()


def session(requests, options=ALL):
    return bytes([options]) + b''.join(struct.pack('<H', len(r)) + r for r in requests)


def delete_by_index(new_policy):
    """The request that deletes by its index what a request to add a policy made."""
    index = new_policy[POLICY_INDEX_AT:POLICY_INDEX_AT + 4]
    direction = struct.unpack('<I', index)[0] & 7
    body = bytes(56) + index + bytes([direction, 0, 0, 0])
    return struct.pack('<LHHLL', 16 + len(body), XFRM_MSG_DELPOLICY, 5, 1, 0) + body


def seeds():
    numbers = sorted(int(os.path.basename(path)[:3])
                     for path in glob.glob(os.path.join(RECORDED, '*-req-*.bin')))
    everything = [recorded(n) for n in numbers]
    for first in range(0, len(everything), IN_ONE_SESSION):
        yield (f'requests-{first // IN_ONE_SESSION:02}',
               session(everything[first:first + IN_ONE_SESSION]))
    new_sa, other_sa, update_sa, delete_other = map(recorded, (0, 3, 106, 129))
    yield 'sa-updated', session([new_sa, update_sa])
    yield 'sa-deleted', session([other_sa, delete_other])
    new_allow, delete_allow, new_policy, update_policy = map(recorded, (155, 197, 140, 175))
    yield 'policy-deleted', session([new_allow, delete_allow])
    yield 'policy-updated', session([new_policy, update_policy])
    indexed = recorded(170)
    yield 'policy-deleted-by-index', session([indexed, delete_by_index(indexed)])
    expiring, anything = recorded(241), recorded(123)  # half a second passes at each request
    yield 'policy-expired', session([expiring] + [anything] * 6)
    yield 'dumps-unfinished', session([new_sa, other_sa, recorded(115), recorded(115)],
                                      CAPPED_ACKS | EXTENDED_ACKS)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, content in seeds():
        with open(os.path.join(sys.argv[1], name), 'wb') as file:
            file.write(content)


if __name__ == '__main__':
    main()
