#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A UDP port that an IKE daemon and esplane share, while either ends and starts again.

    port_share.py PORT_SHARER PRELOAD

    sender 10.8.0.2, fd08::2 ---- veth ---- 10.8.0.1, fd08::1   daemon (a fake)  and  port_sharer

The sender never stops: IKE, ESP, keepalives, and super-packets of IKE among ESP, as the receiving
kernel makes them of what a peer's daemon and data path send.  Whoever gets what is the other's says
so at once.  Daemons are under the shim, or not.  Ends are SIGKILL.  Needs root; skips (77) without
it.
"""
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

PORT = 4500
UDP, SEGMENT = 17, 103
ESP_SPIS = (0xc0000001, 0xc0000002)
SETTLED = 0.8  # seconds: port_sharer looks for daemons five times a second
ADDRESSES = ("10.8.0.1", "fd08::1")


def esp(number, length):
    return struct.pack("!II3sI", ESP_SPIS[number % 2], number, b"ESP", number).ljust(length, b"e")


def ike(number, length):
    header = struct.pack("!IQQBBBBII", 0, 1, 2, 0, 0x20, 37, 8, number, length - 4)
    return (header + b"IKE" + struct.pack("!I", number)).ljust(length, b"i")


def daemon():
    """Runs as the fake IKE daemon: one socket a family; says what it gets, five times a second."""
    sockets = []
    for family, address in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        s = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((address, PORT))
        s.settimeout(0.02)
        sockets.append(s)
    right = wrong = 0
    said = 0.0
    while True:
        for s in sockets:
            try:
                for _ in range(100):
                    packet = s.recv(65536)
                    if packet[32:35] == b"IKE" and len(packet) == 4 + int.from_bytes(packet[28:32],
                                                                                     "big"):
                        right += 1
                    elif packet != b"\xff":
                        wrong += 1
            except TimeoutError:
                pass
        if time.monotonic() - said > 0.1:
            said = time.monotonic()
            print(right, wrong, flush=True)


class Sender(threading.Thread):
    """Sends until it is told to stop; counts messages of IKE by family."""

    def __init__(self, namespace):
        super().__init__(daemon=True)
        self.namespace = namespace
        self.stop = False
        self.ike = self.esp = 0

    def run(self):
        enter(self.namespace)
        sockets = []
        for family, address in zip((socket.AF_INET, socket.AF_INET6), ADDRESSES):
            s = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.bind(("", PORT))
            sockets.append((s, address))
        number = 0
        while not self.stop:
            for s, address in sockets:
                for segments, last in (("I", 0), ("E", 0), ("EEEEEEEE", 0), ("EEIEEI", 0),
                                       ("IEEEEI", 0), ("IIII", 0), ("EEEI", 60), ("IE", 60)):
                    self.send(s, address, segments, number, last)
                    number += len(segments)
                s.sendto(b"\xff", (address, PORT))
            time.sleep(0.002)

    def send(self, s, address, segments, number, last):
        """One message; where `last` is given its last segment is so long, the others 200."""
        lengths = [200] * (len(segments) - 1) + [last or 200]
        data = b"".join((ike if kind == "I" else esp)(number + i, length)
                        for i, (kind, length) in enumerate(zip(segments, lengths)))
        s.setsockopt(UDP, SEGMENT, 200 if len(segments) > 1 else 0)
        try:
            s.sendto(data, (address, PORT))
        except OSError:  # the other end has said that nobody is there
            return
        self.ike += segments.count("I")
        self.esp += segments.count("E")


class Child:
    """A process whose last line of numbers is known."""

    def __init__(self, namespace, command, environment=None):
        self.numbers = ()
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command], stdout=subprocess.PIPE, text=True,
            env={**os.environ, **(environment or {})})
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.numbers = tuple(int(word) for word in line.split())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def right(self):
        return self.numbers[0] if self.numbers else 0

    def wrong(self):
        return self.numbers[1] if self.numbers else 0


def enter(namespace):
    import ctypes
    fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) != 0:
        raise OSError("setns")
    os.close(fd)


class Scene:
    """Both namespaces, and who runs in the one that is tested."""

    def __init__(self, sharer, preload):
        self.here, self.peer = (f"share{os.getpid()}{end}" for end in "ab")
        self.sharer_path, self.preload = sharer, preload
        self.daemon = self.sharer = None
        self.failed = False
        for command in (
                f"netns add {self.here}", f"netns add {self.peer}",
                f"-n {self.here} link set lo up", f"-n {self.peer} link set lo up",
                f"-n {self.here} link add v0 type veth peer name v1 netns {self.peer}",
                f"-n {self.here} address add 10.8.0.1/24 dev v0",
                f"-n {self.here} address add fd08::1/64 dev v0 nodad",
                f"-n {self.peer} address add 10.8.0.2/24 dev v1",
                f"-n {self.peer} address add fd08::2/64 dev v1 nodad",
                f"-n {self.here} link set v0 up", f"-n {self.peer} link set v1 up"):
            subprocess.run(["ip", *command.split()], check=True)
        time.sleep(2)  # the kernel looks at links once a second

    def start_daemon(self, kind):
        environment = {}
        if kind == "shim":
            environment = {"LD_PRELOAD": self.preload, "ESPLANE_XFRM_SOCKET": "/nonexistent"}
        self.daemon = Child(self.here, [sys.executable, __file__, "--daemon"], environment)

    def start_sharer(self):
        self.sharer = Child(self.here, [self.sharer_path, str(PORT), "2"])

    def stop(self, who):
        getattr(self, who).kill()
        setattr(self, who, None)

    def both(self):
        return [child for child in (self.daemon, self.sharer) if child]

    def check(self, sentence, true):
        print(f"{'ok     ' if true else 'not ok '} {sentence}", flush=True)
        self.failed = self.failed or not true

    def settled(self, sentence, since_now=False):
        """Whoever is there gets what is its own, and has got nothing else since it started; or,
        with since_now, gets nothing else any more."""
        time.sleep(SETTLED)
        before = [(child.right(), child.wrong()) for child in self.both()]
        good = False
        until = time.monotonic() + 5
        while not good and time.monotonic() < until:
            time.sleep(0.3)
            after = [(child.right(), child.wrong()) for child in self.both()]
            good = all(a[0] - b[0] > 50 and a[1] == (b[1] if since_now else 0)
                       for b, a in zip(before, after))
        self.check(sentence, good)
        if not good:
            print(f"    right and wrong: {before}, later {after}", flush=True)

    def advances(self):
        """Whether esplane gets anything."""
        before = self.sharer.right()
        time.sleep(0.6)
        return self.sharer.right() > before

    def close(self):
        for child in self.both():
            child.kill()
        for namespace in (self.here, self.peer):
            subprocess.run(["ip", "netns", "delete", namespace], check=False)


def under_the_shim(scene):
    scene.start_sharer()
    scene.settled("esplane alone gets ESP")
    for i in range(3):
        scene.start_daemon("shim")
        scene.settled(f"the daemon comes ({i})")
        scene.stop("sharer")
        scene.settled(f"esplane ended ({i}): the daemon goes on, without ESP")
        scene.start_sharer()
        scene.settled(f"esplane is back ({i})")
        scene.check(f"IKE that was merged with ESP got to the daemon ({i})",
                    scene.sharer.numbers[2] > 0)
        scene.stop("daemon")
        scene.settled(f"the daemon ended ({i}): esplane goes on, without IKE")
    scene.stop("sharer")


def without_the_shim(scene):
    """What is in flight until port_sharer finds the daemon goes to the daemon."""
    scene.start_daemon("plain")
    time.sleep(SETTLED)
    scene.start_sharer()
    scene.settled("a daemon that shares with nobody is shared with", since_now=True)
    for i in range(2):
        scene.stop("sharer")
        scene.settled(f"without the shim: esplane ended ({i})", since_now=True)
        scene.start_sharer()
        scene.settled(f"without the shim: esplane is back ({i})", since_now=True)
        scene.stop("daemon")
        time.sleep(SETTLED)
        scene.start_daemon("plain")
        scene.settled(f"without the shim: the daemon ended and is back ({i})", since_now=True)
    scene.stop("daemon")
    time.sleep(SETTLED)
    scene.check("without the shim: esplane waits for the daemon", not scene.advances())
    time.sleep(8)
    scene.check("without the shim: it does not wait for ever", scene.advances())
    scene.stop("sharer")


def main():
    if sys.argv[1:2] == ["--daemon"]:
        daemon()
    if os.geteuid() != 0:
        print("skipped: needs root (network namespaces): run it with sudo")
        return 77
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # cleans up
    scene = Scene(*sys.argv[1:3])
    sender = Sender(scene.peer)
    try:
        sender.start()
        under_the_shim(scene)
        without_the_shim(scene)
    finally:
        sender.stop = True
        sender.join()
        scene.close()
    return 1 if scene.failed else 0


if __name__ == "__main__":
    sys.exit(main())
