#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Clients of XFRM that do what none should.

    harm.py flood SECONDS            under the shim: asks without reading an answer
    harm.py dump COUNT               under the shim: as many sockets, each with a dump that is not read
    harm.py stall SOCKET COUNT       connects as often, says nothing
    harm.py half SOCKET COUNT        connects as often, says half of a header, and goes
    harm.py forge SOCKET [PID]       sends a forged event to whoever it can reach: by the server's
                                     path, by all names of Unix sockets and, with PID, by taking
                                     the sockets of that process; says how many times it could

dump and stall say "ready" and stay until they are ended.
"""
import ctypes
import os
import signal
import socket
import struct
import sys
import time

NETLINK_XFRM = 6
GETSA, FLUSHSA, GETSADINFO = 0x12, 0x1c, 0x23
REQUEST, DUMP = 1, 0x300


def message(kind, flags, body):
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def xfrm_socket():
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM)


def flood(seconds):
    end = time.monotonic() + float(seconds)
    asking = xfrm_socket()
    while time.monotonic() < end:
        try:
            asking.send(message(GETSADINFO, REQUEST, b"\xff" * 4) * 50)
        except OSError:  # of its own making
            asking.close()
            asking = xfrm_socket()


def stay(kept):
    print("ready", flush=True)
    signal.pause()
    del kept


def dump(count):
    kept = [xfrm_socket() for _ in range(int(count))]
    for one in kept:
        one.send(message(GETSA, REQUEST | DUMP, b""))
    stay(kept)


def connected(path):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.connect(path)
    return one


def stall(path, count):
    stay([connected(path) for _ in range(int(count))])


def half(path, count):
    for _ in range(int(count)):
        one = connected(path)
        one.send(b"1PSE\x04\x00\x02")
        one.close()


# "Flushed state proto esp", as a monitor says.
FORGED = message(FLUSHSA, 0, struct.pack("=B3x", socket.IPPROTO_ESP))


def by_name(name):
    """Sends to a name; says whether that could be done and the other end did not hang up."""
    for kind in socket.SOCK_SEQPACKET, socket.SOCK_DGRAM, socket.SOCK_STREAM:
        with socket.socket(socket.AF_UNIX, kind) as one:
            one.settimeout(1)
            try:
                one.connect(name)
                one.send(FORGED)
                if one.recv(1):
                    return True
            except OSError:
                pass
    return False


def names():
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            name = line.rstrip("\n").split(" ")[-1]
            if "esplane" in name:
                yield "\0" + name[1:] if name.startswith("@") else name


def taken_from(pid):
    """Sends by copies of a process's sockets; says by how many."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    pidfd_open, pidfd_getfd = 434, 438
    process = call(pidfd_open, pid, 0)
    sent = 0
    for number in range(256):
        copy = call(pidfd_getfd, process, number, 0)
        if copy < 0:
            continue
        try:
            with socket.socket(fileno=copy) as one:
                one.send(FORGED, socket.MSG_DONTWAIT)
                sent += 1
        except OSError:
            pass
    return sent


def forge(path, pid=None):
    reached = sum(map(by_name, [path, *names()]))
    print(reached + (taken_from(int(pid)) if pid else 0))


if __name__ == "__main__":
    what = {f.__name__: f for f in (flood, dump, stall, half, forge)}
    if len(sys.argv) < 3 or sys.argv[1] not in what:
        sys.exit(__doc__)
    os.environ.pop("LD_PRELOAD", None)
    what[sys.argv[1]](*sys.argv[2:])
