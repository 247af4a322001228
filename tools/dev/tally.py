#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts what tests said, one line a case:  pass|fail|skip TAB name [TAB reason].

    tally.py meson BUILD GTEST_XML STATUS [PREFIX]  the last `meson test` in BUILD and its exit
                                        status; cases of GoogleTest binaries from their files in
                                        GTEST_XML
    tally.py output NAME STATUS         one command's output on stdin, and its exit status
    tally.py sum [--no-skips]           lines on stdin: what failed, what was skipped and why, then
                                        `N passed, N failed, N skipped`; exit status 1 if one
                                        failed, none passed or, with --no-skips, one was skipped

A command's output may say its cases itself, in lines `ok SENTENCE` and `FAILED SENTENCE`; else it
is one case.  A skipped one says why in a line `skipped: REASON` and exits with 77.  What should
have left a report and did not has failed.
"""
import json
import pathlib
import re
import sys
import xml.etree.ElementTree

CASE = re.compile(r"^(ok|FAILED) +(\S.*)$", re.MULTILINE)
REASON = re.compile(r"^skipped: (.*)$", re.MULTILINE)
GTEST = re.compile(r"^\[==========\] Running ", re.MULTILINE)
SKIPPED_STATUS = 77


def from_output(name, status, output):
    """Yields (verdict, case, reason)."""
    if status == SKIPPED_STATUS:
        reason = REASON.search(output)
        yield "skip", name, reason[1] if reason else "exit status 77, no reason given"
        return
    failed = False
    cases = CASE.findall(output)
    for verdict, sentence in cases:
        failed = failed or verdict == "FAILED"
        yield "pass" if verdict == "ok" else "fail", f"{name}: {sentence}", ""
    if status != 0 and not failed:
        yield "fail", name, f"exit status {status}"
    elif GTEST.search(output):
        yield "fail", name, "GoogleTest ran and left no report of its cases"
    elif not cases:
        yield "pass", name, ""


def from_gtest(name, status, report):
    failed = False
    cases = list(xml.etree.ElementTree.parse(report).getroot().iter("testcase"))
    for case in cases:
        title = f"{name}: {case.get('classname')}.{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None:
            failed = True
            yield "fail", title, ""
        elif skipped is not None:
            yield "skip", title, " ".join((skipped.get("message") or "").split())
        elif case.get("status") == "run":
            yield "pass", title, ""
        else:
            yield "skip", title, "disabled"
    if not cases or (status != 0 and not failed):
        yield "fail", name, f"{len(cases)} cases, exit status {status}"


def from_meson(build, reports, meson_status, prefix=""):
    log = pathlib.Path(build) / "meson-logs/testlog.json"
    tests = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    verdicts = set()
    for verdict, name, reason in from_meson_tests(tests, reports, prefix):
        verdicts.add(verdict)
        yield verdict, name, reason
    if not tests or (int(meson_status) != 0 and "fail" not in verdicts):
        yield "fail", f"{prefix}meson test", f"{len(tests)} tests, exit status {meson_status}"


def from_meson_tests(tests, reports, prefix):
    for test in tests:
        name = prefix + test["name"]
        status = test["returncode"]
        output = test.get("stdout", "") + "\n" + test.get("stderr", "")
        report = pathlib.Path(reports) / (pathlib.Path(test["command"][0]).name + ".xml")
        if test["result"] == "TIMEOUT":
            yield "fail", name, "ran out of time"
        elif report.exists() and status != SKIPPED_STATUS:
            yield from from_gtest(name, status, report)
        else:
            yield from from_output(name, status, output)


def total(lines, no_skips):
    verdicts = {"pass": [], "fail": [], "skip": []}
    for line in lines:
        verdict, _, rest = line.rstrip("\n").partition("\t")
        if verdict in verdicts:
            verdicts[verdict].append(rest.replace("\t", ": "))
    for case in verdicts["fail"]:
        print(f"FAILED   {case}")
    for case in verdicts["skip"]:
        print(f"skipped  {case}")
    if no_skips and verdicts["skip"]:
        print("here nothing may be skipped")
    print(", ".join(f"{len(verdicts[v])} {word}" for v, word in
                    (("pass", "passed"), ("fail", "failed"), ("skip", "skipped"))))
    return 1 if verdicts["fail"] or not verdicts["pass"] or (no_skips and verdicts["skip"]) else 0


def main():
    command, *rest = sys.argv[1:]
    if command == "sum":
        return total(sys.stdin, "--no-skips" in rest)
    cases = (from_meson(*rest) if command == "meson"
             else from_output(rest[0], int(rest[1]), sys.stdin.read()))
    for verdict, name, reason in cases:
        print("\t".join(filter(None, (verdict, name, reason))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
