"""What a night costs: pipelines/nightly-rescore.yaml on a synthetic external cohort of the study's size (`make bench-nightly`).

Makes a registry of 2,777 tiny cases and two networks, then runs nights: all of it, nothing new, a full re-hash, 1 % of the images
changed, another model. Prints wall and CPU time of the process, the time in which stages were busy (`explain --analyze`), and what was done.
"""

import argparse
import gzip
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
TRAINER = """
torcula: 1
name: trainer
vars: {{ seed: 1 }}
seed: ${{seed}}
catalog: {folder}/trained/catalog
steps:
  registry: {{ ingest: {{ bids: {folder}/learned, source: learned }} }}
  prepared:
    from: registry
    stages:
      - skull_strip: {{ blur_mm: 2.0, largest_component: true, fill_holes: true }}
      - n4: {{ iterations: [10, 10, 10, 10], shrink: 2 }}
      - normalize: {{ peak: 150, clip: 255 }}
    keep: [image]
  parts: {{ from: prepared, split: {{ parts: {{ train: 0.7, val: 0.3 }} }} }}
  shards: {{ from: parts, stages: [{{ resample: {{ shape: [24, 24, 8] }} }}], to: shards }}
  unet: {{ from: shards, train: {{ levels: 2, filters: 4, epochs: 3, batch: 2, augment: [], device: cpu }} }}
"""
TINY = [
    "steps.prepared.stages.qc.min_shape=[8, 8, 4]",
    "steps.prepared.stages.qc.max_spacing_mm=[20, 20, 40]",
    "steps.predicted.infer.device=cpu",
]
LIMIT_S = 3.0
LIMIT_SHARE = 0.015


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode not in (0, 4):
        sys.exit(f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def cpu_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Nights:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder

    def night(self, name, model, *more):
        sets = [f"data={self.folder}", f"model={model}", *TINY, *more]
        command = [self.binary, "explain", "--analyze", ROOT / "pipelines/nightly-rescore.yaml", "--progress", "none"]
        command += [part for text in sets for part in ("--set", text)]
        began, cpu = time.monotonic(), cpu_s()
        text = run(command)
        wall, cpu = time.monotonic() - began, cpu_s() - cpu
        done = dict(re.findall(r"^(\w+): (\d+) done", text, re.M))
        # The rows of the tables of stages: stage, cases, failed, busy s, ms/case, % busy.
        busy = sum(float(row) for row in re.findall(r"^\w+ +\d+ +\d+ +([\d.]+) +[\d.]+ +[\d.]+", text, re.M))
        counts = ", ".join(f"{step} {done[step]}" for step in ("external", "prepared", "predicted", "scored"))
        print(f"{name:<28} {wall:8.2f} {cpu:8.2f} {busy:10.3f}   {counts}", flush=True)
        return {"wall": wall, "cpu": cpu, "busy": busy}


def flip(path):
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[352 + (len(data) - 352) // 2] ^= 1
    path.write_bytes(gzip.compress(bytes(data), 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/torcula")
    parser.add_argument("--cases", type=int, default=2777)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="torcula-nights-"))
    try:
        bench(args, folder)
    finally:
        shutil.rmtree(folder)


def bench(args, folder):
    tiny = ["--matrix", 24, "--slices", 8]
    run([args.binary, "synth", folder / "external", "--cases", args.cases, "--sites", 10, "--seed", 12, *tiny])
    run([args.binary, "synth", folder / "learned", "--cases", 20, "--sites", 3, "--seed", 3, *tiny])
    (folder / "trainer.yaml").write_text(TRAINER.format(folder=folder))
    models = []
    for seed in (1, 2):
        run([args.binary, "run", folder / "trainer.yaml", "--progress", "none", "--set", f"seed={seed}"])
        models.append(folder / f"model{seed}.safetensors")
        run([args.binary, "models", "export", "unet", models[-1], "--catalog", folder / "trained/catalog"])
    nights = Nights(args.binary, folder)
    print(f"{args.cases} cases of 24×24×8 voxels\n{'night':<28} {'wall s':>8} {'CPU s':>8} {'stages s':>10}   done")
    full = nights.night("all of it", models[0])
    quiet = [nights.night("nothing new", models[0]) for _ in range(args.repeat)]
    nights.night("nothing new, all hashed", models[0], "rehash=true")
    images = sorted((folder / "external").glob("sub-*/dwi/*_dwi.nii.gz"))
    for image in images[:: len(images) // max(1, round(len(images) / 100))][: round(len(images) / 100)]:
        flip(image)
    few = nights.night("1 % of the images changed", models[0])
    nights.night("another model", models[1])
    nights.night("nothing new", models[1])
    wall = min(night["wall"] for night in quiet)
    cpu = min(night["cpu"] for night in quiet)
    share = few["busy"] / full["busy"]
    more = (few["cpu"] - cpu) / (full["cpu"] - cpu)
    print(f"nothing new: {wall:.2f} s ({cpu:.2f} s CPU), at most {LIMIT_S} s: {told(wall <= LIMIT_S)}")
    print(f"1 % changed: {100 * share:.2f} % of the time in stages, at most {100 * LIMIT_SHARE} %: {told(share <= LIMIT_SHARE)}")
    print(f"1 % changed: {100 * more:.2f} % of the process's CPU time, each less that of a night without news")


def told(holds):
    return "holds" if holds else "DOES NOT HOLD"


if __name__ == "__main__":
    main()
