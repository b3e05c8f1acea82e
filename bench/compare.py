"""Our training step beside PyTorch's: same text, same flags, same machine, in alternating runs.

    python3 bench/compare.py --input=TEXT [--rounds=5] [--modes=wide,narrow] [flags of training, as --batch_size=12]

Prints the medians of all steps but each run's first, their ratio for each mode, and the largest difference between our
losses and PyTorch's over the run. Needs PyTorch (pip install torch) and deno.
"""

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
WARM = 20  # steps of a run that are not counted: compilation, caches
V8 = {"wide": "--experimental-wasm-revectorize,--no-wasm-bounds-checks,--no-liftoff", "narrow": "--no-liftoff"}


def ours(mode, flags):
    with tempfile.TemporaryDirectory() as folder:
        command = ["deno", "run", "-A", str(ROOT / "src/cli/train.ts"), f"--out_dir={folder}/run", "--log_interval=1", *flags]
        done = subprocess.run(command, env={**os.environ, "DENO_V8_FLAGS": V8[mode]}, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return (pathlib.Path(folder) / "run/metrics.jsonl").read_text()


def theirs(flags):
    return subprocess.run([sys.executable, str(ROOT / "bench/pytorch_train.py"), *flags], capture_output=True, text=True, check=True).stdout


def steps(lines):
    entries = [json.loads(line) for line in lines.splitlines()]
    return [entry for entry in entries if "loss" in entry]


def main():
    options = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:])
    rounds, modes = int(options.pop("rounds", 5)), options.pop("modes", "wide,narrow").split(",")
    if "input" not in options:
        sys.exit("compare: --input=TEXT is missing")
    flags = [f"--{name}={value}" for name, value in {"max_iters": 100, "eval_interval": 1000, "eval_iters": 1, "threads": 2, **options}.items()]
    runs = {name: [] for name in ["PyTorch", *modes]}
    for turn in range(rounds):
        runs["PyTorch"].append(steps(theirs(flags)))
        for mode in modes:
            runs[mode].append(steps(ours(mode, flags)))
        print(f"round {turn + 1} of {rounds} done", file=sys.stderr)

    print(f"{cpu()}, {platform.system()}; {' '.join(flags)}")
    times = {name: [step["ms"] for run in of for step in run[WARM:]] for name, of in runs.items()}
    base = statistics.median(times["PyTorch"])
    for name, of in times.items():
        median = statistics.median(of)
        print(f"{name:8} best {min(of):8.2f} ms, median {median:8.2f} ms, ratio to PyTorch {median / base:.2f}")
    for mode in modes:
        worst = max(abs(a["loss"] - b["loss"]) for a, b in zip(runs["PyTorch"][0], runs[mode][0]))
        print(f"largest difference of the loss over {len(runs[mode][0])} iterations, {mode}: {worst:.1e}")


def cpu():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
