"""Counts the instructions of each step of the hot path under callgrind, and compares with benches/instructions.json.

Question: did a change make the hot path dearer? Unit: instructions per step. Each case of benches/instructions.rs runs
with two counts; the difference is what the steps took. Counts hardly depend on the machine's load, so they can gate.
Fails when a step takes more than the tolerance over the baseline, or a ratio is over its bound; `--write` makes what
was measured the new baseline. Needs valgrind (`make deps`).
"""

import argparse, concurrent.futures, json, os, re, subprocess, sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "instructions.json"
COUNTS = (1000, 3000)
# (case, case, how many times the second the first may take)
RATIOS = [("decide_1000", "decide_10", 1.2), ("decide_infix_1000", "decide_infix_10", 1.2)]


def build():
    command = ["cargo", "bench", "--locked", "--no-run", "--bench", "instructions", "--message-format", "json"]
    lines = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    built = [entry for entry in map(json.loads, lines) if entry.get("executable")]
    return next(entry["executable"] for entry in built if entry["target"]["name"] == "instructions")


def total(binary, case, count):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, case, str(count)]
    environment = {"PATH": os.environ["PATH"], "TMPDIR": os.environ.get("TMPDIR", "/tmp")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not collected:
        sys.exit(f"{case} {count}: exit {run.returncode}\n{run.stderr[-2000:]}")
    return int(collected[1])


def measure(binary, case):
    low, high = (total(binary, case, count) for count in COUNTS)
    return round((high - low) / (COUNTS[1] - COUNTS[0]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="all of them, unless named")
    parser.add_argument("--binary", help="built with the bench profile, unless given")
    parser.add_argument("--tolerance", type=float, default=5, help="per cent over the baseline (5)")
    parser.add_argument("--write", action="store_true", help="take what was measured as the baseline")
    options = parser.parse_args()
    binary = options.binary or build()
    known = subprocess.run([binary], capture_output=True, text=True, check=True).stdout.split()
    cases = options.cases or known
    if unknown := set(cases) - set(known):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = dict(zip(cases, pool.map(lambda case: measure(binary, case), cases)))
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    failures = []
    print(f"{'step':20}{'instructions':>14}{'baseline':>12}{'change':>10}")
    for case, count in found.items():
        before = baseline.get(case)
        change = f"{(count / before - 1) * 100:+.1f} %" if before else "new"
        print(f"{case:20}{count:14,}{before or 0:12,}{change:>10}")
        if options.write:
            continue
        if before is None:
            failures.append(f"{case} has no baseline")
        elif count > before * (1 + options.tolerance / 100):
            failures.append(f"{case} takes {count:,} instructions, {change} over the baseline of {before:,}")
    for first, second, bound in RATIOS:
        if first in found and second in found:
            ratio = found[first] / found[second]
            print(f"{first} / {second}: {ratio:.2f} (at most {bound})")
            if ratio > bound:
                failures.append(f"{first} takes {ratio:.2f} times {second}, at most {bound} is allowed")
    if options.write:
        merged = {case: count for case, count in (baseline | found).items() if case in known}
        BASELINE.write_text(json.dumps(merged, indent=2) + "\n")
        print(f"written to {BASELINE.relative_to(HERE.parent)}")
    for failure in failures:
        print(f"bench-gate: {failure}", file=sys.stderr)
    if failures:
        print("bench-gate: if the cost is meant, take the new counts with `make bench-baseline`", file=sys.stderr)
    sys.exit(1 if failures else 0)


main()
