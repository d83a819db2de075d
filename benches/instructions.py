"""Instructions that the hot kernels execute, as callgrind counts them: a regression shows without a quiet machine.

  instructions.py             counts, compares with instructions.tsv; exits with 1 where a kernel takes 3 % more
  instructions.py --record    counts and writes instructions.tsv

A kernel runs once and three times; half the difference is one run without its preparation. Valgrind has no AVX-512, so what is
counted is the AVX2 code.
"""
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECORD = HERE / "instructions.tsv"
MOST = 1.03


def build():
    command = ["cargo", "bench", "--bench", "instructions", "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return next(f["executable"] for f in found if f.get("executable") and f["target"]["name"] == "instructions")


def executed(program, kernel, times):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, kernel, str(times)]
    done = subprocess.run(command, capture_output=True, text=True)
    counted = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not counted:
        sys.exit(f"{kernel}: {done.stderr[-2000:]}")
    return int(counted[1])


def main():
    program = build()
    kernels = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    with ThreadPoolExecutor(2) as pool:
        once, thrice = (list(pool.map(lambda k: executed(program, k, n), kernels)) for n in (1, 3))
    found = {k: (b - a) / 2e6 for k, a, b in zip(kernels, once, thrice)}
    if "--record" in sys.argv:
        lines = [f"{kernel}\t{millions:.1f}" for kernel, millions in found.items()]
        RECORD.write_text("kernel\tmillion instructions\n" + "\n".join(lines) + "\n")
    recorded = dict(line.split("\t") for line in RECORD.read_text().splitlines()[1:])
    slower = 0
    for kernel, millions in found.items():
        before = float(recorded.get(kernel, "nan"))
        slower += not millions <= MOST * before
        print(f"{kernel:48} {millions:9.1f} million, recorded {before:9.1f}: {millions / before - 1:+.1%}")
    return int(slower > 0)


if __name__ == "__main__":
    sys.exit(main())
