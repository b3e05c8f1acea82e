"""Rewrites the fixtures of the golden tests with PyTorch: `deno task golden`, or `deno task golden OP…` for some ops only.

Expected values are computed in f64 from inputs that f32 represents. With one thread, AVX2 kernels and MKL's common code
path, the numbers do not depend on the x86-64 processor, except for the last bits of some; nanoGPT gets the same initial
weights there. A file is written only if its cases, inputs or results have changed.
"""

import os

os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
os.environ["MKL_CBWR"] = "COMPATIBLE"

import hashlib
import json
import pathlib
import sys

import numpy
import torch

sys.dont_write_bytecode = True
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

import generate_random
import recorder
from fixture import write_text

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE / "fixtures"
MANIFEST = HERE / "manifest.json"


def of_ops(ops):
    """Rewrites the fixtures of these ops, or of all."""
    recorder.only.update(ops)
    import model_op_cases  # importing records the cases
    import tensor_op_cases  # noqa: F401

    unknown = recorder.only.difference(recorder.files)
    if unknown:
        sys.exit(f"no case is of {', '.join(sorted(unknown))}: expected names of ops, as src/ops/mod.ts exports them")
    return {f"ops_{op}": fixture for op, fixture in recorder.files.items()}


def of_models():
    import alignment_cases
    import model_cases
    import run_cases

    made = {"modules": model_cases.modules(), "models": model_cases.models(), "optimizer": model_cases.optimizer_steps()}
    made["cached_attention"] = model_cases.cached_attention()
    made["documents"] = model_cases.documents()
    made["schedule"], made["initial"] = run_cases.schedule(), run_cases.initial()
    made["curves"], trained = run_cases.curves()
    made["sampling"] = run_cases.sampling(trained)
    return made | alignment_cases.fixtures()


def main(ops):
    made = of_ops(ops)
    files = json.loads(MANIFEST.read_text())
    if not ops:
        made.update(of_models())
        generate_random.main(str(HERE))
        for path in FIXTURES.glob("ops_*.safetensors"):
            if path.stem not in made:
                path.unlink()
        files = {name: entry for name, entry in files.items() if (FIXTURES / name).exists()}
    for name, fixture in made.items():
        path = FIXTURES / f"{name}.safetensors"
        changed = fixture.write(path)
        data = path.read_bytes()
        entry = {"cases": len(fixture.cases), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if changed or not entry.items() <= files.get(path.name, {}).items():
            files[path.name] = {**entry, "torch": torch.__version__, "numpy": numpy.__version__}
            print(f"{path.name}: {entry['cases']} cases, {entry['bytes']} bytes")
    write_text(MANIFEST, json.dumps(dict(sorted(files.items())), indent=2) + "\n")
    cases, size = (sum(file[key] for file in files.values()) for key in ["cases", "bytes"])
    print(f"{cases} cases, {size} bytes in all")
    for kind, error in recorder.worst.items():
        print(f"PyTorch's own f32 kernels, {kind}: {error:.1e}")


if __name__ == "__main__":
    main(sys.argv[1:])
