#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a busy IKE daemon does: connections come, are rekeyed and go, an SA and a policy each.

changing_client.py run STOP EXPECTED   lines for `ip -batch -`, until there is a file STOP; then
                                       what is there goes to EXPECTED
changing_client.py leave EXPECTED      lines that take it out
changing_client.py compare EXPECTED    `ip xfrm state; ip xfrm policy` on stdin: whether that is there,
                                       in its order (the newest first), and nothing else of these ends
"""
import json
import os
import random
import re
import sys
import time

ENDS = "src 10.250.0.1 dst 10.250.0.3"
PACE_S = 0.002
MOST = 200


class Connections:
    def __init__(self):
        self.random = random.Random(1)
        self.spi = 0x30000
        self.sas = []  # SPIs, the newest last
        self.policies = []  # (number, priority, reqid), the newest last
        self.number = 0

    def add(self):
        self.number = self.number % 250 + 1
        if any(p[0] == self.number for p in self.policies):
            return []
        self.spi += 1
        self.sas.append(self.spi)
        self.policies.append([self.number, 100, self.spi])
        return [sa_line("add", self.spi), policy_line("add", self.policies[-1])]

    def rekey(self):
        policy = self.policies.pop(self.random.randrange(len(self.policies)))
        self.spi += 1
        number, priority, old = policy
        self.sas.remove(old)
        self.sas.append(self.spi)
        self.policies.append([number, priority + 1, self.spi])
        return [sa_line("add", self.spi), policy_line("update", self.policies[-1]),
                sa_line("delete", old)]

    def remove(self):
        policy = self.policies.pop(self.random.randrange(len(self.policies)))
        self.sas.remove(policy[2])
        return gone(policy)

    def step(self):
        kind = self.random.randrange(3)
        if not self.policies or (kind == 0 and len(self.policies) < MOST):
            return self.add()
        return self.rekey() if kind == 1 else self.remove()


def sa_line(verb, spi):
    line = f"xfrm state {verb} {ENDS} proto esp spi {spi:#x}"
    if verb == "add":
        line += f" reqid {spi} mode tunnel replay-window 64 aead rfc4106(gcm(aes)) {spi:#042x} 128"
    return line


def policy_line(verb, policy):
    number, priority, reqid = policy
    line = f"xfrm policy {verb} src 10.77.0.{number}/32 dst 10.78.0.{number}/32 dir out"
    if verb != "delete":
        line += f" priority {priority} tmpl {ENDS} proto esp reqid {reqid} mode tunnel"
    return line


def gone(policy):
    return [policy_line("delete", policy), sa_line("delete", policy[2])]


def run(stop, expected):
    all_of_them = Connections()
    while not os.path.exists(stop):
        for line in all_of_them.step():
            print(line, flush=True)
        time.sleep(PACE_S)
    with open(expected, "w") as file:
        json.dump({"sas": all_of_them.sas, "policies": all_of_them.policies}, file)


def compare(expected):
    text = sys.stdin.read()
    sas = re.findall(ENDS + r"\s+proto esp spi (0x[0-9a-f]+)", text)
    policies = re.findall(
        r"src 10\.77\.0\.(\d+)/32 dst 10\.78\.0\.\1/32\s+dir out priority (\d+)[^\n]*\n"
        r"\s+tmpl " + ENDS + r"\s+proto esp reqid (\d+)", text)
    seen = {"sas": [int(spi, 16) for spi in reversed(sas)],
            "policies": [[int(n) for n in p] for p in reversed(policies)]}
    asked = json.load(open(expected))
    print(f"{len(asked['sas'])} SAs, {len(asked['policies'])} policies, "
          f"{max(asked['sas'], default=0) - 0x30000} SAs in all")
    for what in asked:
        if seen[what] != asked[what]:
            print(f"{what}: asked for {asked[what]}\n  there are {seen[what]}")
    return seen == asked


def main():
    if sys.argv[1] == "run":
        run(sys.argv[2], sys.argv[3])
    elif sys.argv[1] == "leave":
        for policy in json.load(open(sys.argv[2]))["policies"]:
            print("\n".join(gone(policy)))
    elif not compare(sys.argv[2]):
        sys.exit(1)


main()
