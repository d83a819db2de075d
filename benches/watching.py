"""What watching a run costs: CPU time with everything on against everything off, in turns, on the same cases.

    make bench-watching

On: a log, the metrics file, the metrics server, and spans of every stage and metrics to an OpenTelemetry collector (a server in
this process, whose time is not counted). `info` sends spans of runs, steps and cases only. Prints the median of the pairs' ratios
and the spread between the quartiles. With `--instructions` valgrind counts instructions instead, which noise of the machine does
not touch.
"""

import argparse
import http.server
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = ROOT / "tests/behaviour/prepare.yaml"
REGISTRIES = {
    "many small cases (24x24x8)": dict(cases=400, matrix=24, slices=8),
    "realistic cases (192x192x27)": dict(cases=24, matrix=192, slices=27),
}


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes everything."""

    protocol_version = "HTTP/1.1"
    received = 0

    def do_POST(self):
        Collector.received += len(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def run(program, folder, watching, instructions):
    """CPU seconds (or instructions) of one run from an empty catalog."""
    for name in ("catalog", "derivatives"):
        shutil.rmtree(folder / name, ignore_errors=True)
    command = [program, "run", PIPELINE, "--set", f"data={folder}", "--progress", "none", *watching]
    counting = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"] if instructions else []
    with open(folder / "said", "w") as said:
        child = subprocess.Popen([*counting, *command], stdout=said, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    said = (folder / "said").read_text()
    if child.returncode:
        sys.exit(said)
    return int(re.search(r"Collected : (\d+)", said)[1]) if instructions else usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/torcula")
    parser.add_argument("--instructions", action="store_true", help="count them with valgrind (slow)")
    args = parser.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    unit = "instructions" if args.instructions else "s of CPU"
    for name, shape in REGISTRIES.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            if args.instructions:
                shape = dict(shape, cases=shape["cases"] // 8)
            synth = [f"--{key}={value}" for key, value in shape.items()]
            subprocess.run([args.program, "synth", folder / "internal", "--sites=2", "--seed=5", *synth], check=True, stdout=subprocess.DEVNULL)
            exports = ["--metrics", folder / "torcula.prom", "--metrics-listen", "127.0.0.1:0", "--otlp", f"http://127.0.0.1:{server.server_port}"]
            log = ["--log", folder / "run.log"]
            ways = {"log": log, "all, info": [*log, *exports, "--otlp-level", "info"], "all, debug": [*log, *exports]}
            run(args.program, folder, [], False)
            found = {way: [] for way in ways}
            offs = []
            for _ in range(2 if args.instructions else args.pairs):
                off = run(args.program, folder, [], args.instructions)
                offs.append(off)
                for way, options in ways.items():
                    found[way].append(run(args.program, folder, options, args.instructions) / off)
            print(f"{name}: {statistics.median(offs):.4g} {unit} without, {shape['cases']} cases")
            for way, ratios in found.items():
                low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 2 else (min(ratios), statistics.mean(ratios), max(ratios))
                print(f"  {way:12} {(middle - 1) * 100:+.2f} % (quartiles {(low - 1) * 100:+.2f} … {(high - 1) * 100:+.2f} %)")
    print(f"the collector received {Collector.received / 1e6:.1f} MB")


main()
