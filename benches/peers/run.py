"""Our kernels against the reference tools: what they find (`agree`) and what time they take (`speed`).

  run.py agree            recomputes every agreement; exits with 1 where one does not hold
  run.py speed            CPU time of one core beside the reference's in the same run; writes RESULTS.md
  --only NAME             one group (n4, smoothing, ...)
  --real FOLDER           real images too, as far as FOLDER has them
  --peers BINARY          our side, built already; otherwise cargo builds it
  --training BINARY       torcula-training, built already; otherwise cargo builds it
  --repeats N             times that a speed is measured; the least counts

A group is a module beside this one with `agree(work)` and `speed(work)`, both giving rows (see work.py).
"""
import argparse
import importlib
import json
import math
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
GROUPS = ["n4", "smoothing", "resample", "quality", "geometry", "augment", "files", "feed", "training", "networks", "stats", "chain"]
TOOLS = ["SimpleITK", "numpy", "scipy", "nibabel", "scikit-image", "connected-components-3d", "torch", "torchio", "monai", "safetensors", "webdataset", "tensorboard", "n4ax", "statsmodels"]


def build():
    command = ["cargo", "bench", "--bench", "peers", "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=HERE.parent.parent, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return next(f["executable"] for f in found if f.get("executable") and f["target"]["name"] == "peers")


def figure(value):
    if value is None or value == "":
        return ""
    if not isinstance(value, (int, float)):
        return str(value)
    if value == 0 or math.isnan(value):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1e3 else f"{value:,.0f}"


def table(rows, columns):
    if not rows:
        print("nothing to show")
        return
    cells = [columns] + [[str(r[c]) for c in columns] for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def agreement_cells(row):
    return {**row, "ours": figure(row["ours"]), "theirs": figure(row["theirs"]), "difference": figure(row["difference"]),
            "limit": figure(row["limit"]), "holds": "yes" if row["holds"] else "NO"}


def speed_cells(row, machine):
    floor = max((row.get("bytes") or 0) / machine["bytes_per_ms"], (row.get("operations") or 0) / machine["operations_per_ms"])
    return {"kernel": row["kernel"], "what": row["what"], "rival": row["rival"], "ours, ms": figure(row["ours"]),
            "theirs, ms": figure(row["theirs"]), "faster": f"{figure(row['ratio'])}×",
            "aim": f"{figure(row['limit'])}×" if row["limit"] else "", "reached": "yes" if row["holds"] else "no",
            "roofline, ms": figure(floor) if floor else "", "above it": f"{figure(row['ours'] / floor)}×" if floor else "",
            "note": row.get("note") or ""}


def processor():
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def versions():
    found = []
    for tool in TOOLS:
        try:
            found.append(f"{tool} {metadata.version(tool)}")
        except metadata.PackageNotFoundError:
            found.append(f"{tool} not installed")
    return ", ".join(found)


def write_results(rows, machine):
    columns = list(rows[0])
    lines = [
        "# Speed against the reference tools", "",
        "CPU time of one core, both sides in the same run, least of several. Made by `make bench-peers`; kernels that wait for"
        " memory or differ between processors differ elsewhere.", "",
        f"- Machine: {processor()}; one core copies {machine['bytes_per_ms'] / 1e6:.1f} GB/s (read and written) and does"
        f" {machine['operations_per_ms'] / 1e6:.0f} billion float operations a second.",
        f"- Python {platform.python_version()}, {versions()}.",
        "- Roofline: what the bytes that must move, or the operations that must be done, take on this core at least.", "",
        "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns),
    ]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    (HERE / "RESULTS.md").write_text("\n".join(lines) + "\n")


def keep_memory():
    """Starts this program again with an allocator that keeps what is freed, for both sides alike.

    By default glibc gives large blocks back to the system at once. Every repeat would then wait for fresh pages, which a
    run over many cases does not.
    """
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        kept = {"MALLOC_TRIM_THRESHOLD_": str(4 << 30), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **kept})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["agree", "speed"])
    parser.add_argument("--only")
    parser.add_argument("--real", default=os.environ.get("TORCULA_REAL_DATA"))
    parser.add_argument("--peers")
    parser.add_argument("--training")
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    keep_memory()
    # One thread in every library that would take more: it must be said before they are loaded.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from work import Work
    work = Work(asked.peers or build(), asked.real, asked.repeats, asked.training)
    rows = []
    for group in [asked.only] if asked.only else GROUPS:
        print(f"{group} ...", file=sys.stderr, flush=True)
        rows += getattr(importlib.import_module(group), asked.mode)(work)
    if asked.mode == "agree":
        columns = ["kernel", "rival", "what", "ours", "theirs", "unit", "difference", "limit", "holds"]
        table([agreement_cells(r) for r in rows], columns)
        failed = sum(not r["holds"] for r in rows)
        print(f"{len(rows) - failed} of {len(rows)} hold")
        return int(failed > 0)
    cells = [speed_cells(r, work.machine()) for r in rows]
    table(cells, list(cells[0]) if cells else [])
    if not asked.only:
        write_results(cells, work.machine())
    return 0


if __name__ == "__main__":
    sys.exit(main())
