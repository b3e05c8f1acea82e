"""Our training step and matrix products beside PyTorch's: same text, same flags, same machine, in alternating runs.

    python3 bench/compare.py --input=TEXT [--rounds=5] [--modes=wide,narrow] [flags of training, as --batch_size=12]

Prints the medians of all steps but each run's first, their ratio for each mode, the largest difference between our losses
and PyTorch's over the run, and the best rates of some products. Needs PyTorch (pip install torch) and deno.
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


SHAPES = ["768x128x512", "768x512x128", "512x512x512"]


def our_products(mode, threads):
    command = ["deno", "run", str(ROOT / "bench/matmul.ts"), threads, *SHAPES]
    done = subprocess.run(command, env={**os.environ, "DENO_V8_FLAGS": V8[mode]}, capture_output=True, text=True, check=True)
    return [float(line.split()[1]) for line in done.stdout.splitlines()]


def their_products(threads):
    code = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
for shape in sys.argv[2:]:
    M, K, N = map(int, shape.split("x"))
    a, b, c, best, until, i = torch.rand(M, K) - 0.5, torch.rand(K, N) - 0.5, torch.empty(M, N), 9.0, time.perf_counter() + 0.7, 0
    while i < 50 or time.perf_counter() < until:
        begin = time.perf_counter()
        torch.mm(a, b, out=c)
        best, i = min(best, time.perf_counter() - begin), i + 1
    print(shape, 2 * M * K * N / best / 1e9)
"""
    done = subprocess.run([sys.executable, "-c", code, threads, *SHAPES], capture_output=True, text=True, check=True)
    return [float(line.split()[1]) for line in done.stdout.splitlines()]


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
    rates = {name: [] for name in runs}
    threads = str(options.get("threads", 2))
    for turn in range(rounds):
        runs["PyTorch"].append(steps(theirs(flags)))
        for mode in modes:
            runs[mode].append(steps(ours(mode, flags)))
        rates["PyTorch"].append(their_products(threads))
        for mode in modes:
            rates[mode].append(our_products(mode, threads))
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
    best = {name: [max(rate) for rate in zip(*of)] for name, of in rates.items()}
    for i, shape in enumerate(SHAPES):
        parts = [f"{name} {of[i]:.0f} GF/s ({of[i] / best['PyTorch'][i]:.2f})" for name, of in best.items()]
        print(f"{shape}: {', '.join(parts)}")


def cpu():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
