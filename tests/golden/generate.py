"""Rewrites the fixtures of the golden tests with PyTorch: `deno task golden`.

Expected values are computed in f64 from inputs that f32 represents. One thread, AVX2 kernels and MKL's
common code path make the bytes independent of the x86-64 processor; initial weights are what nanoGPT gets there.
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
import model_cases
import model_op_cases  # noqa: F401  as it is read, it records
import recorder
import run_cases
import tensor_op_cases  # noqa: F401

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE / "fixtures"

if __name__ == "__main__":
    FIXTURES.mkdir(exist_ok=True)
    manifest = {
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "seeds": [recorder.SEED, model_cases.SEED],
        "files": {},
    }
    files = {f"ops_{name}": fixture for name, fixture in recorder.files.items()}
    files["modules"], files["models"] = model_cases.modules(), model_cases.models()
    files["optimizer"] = model_cases.optimizer_steps()
    files["schedule"], files["initial"] = run_cases.schedule(), run_cases.initial()
    files["curves"], trained = run_cases.curves()
    files["sampling"] = run_cases.sampling(trained)
    for name, fixture in files.items():
        path = FIXTURES / f"{name}.safetensors"
        fixture.write(path)
        data = path.read_bytes()
        manifest["files"][path.name] = {
            "cases": len(fixture.cases),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    made = {*manifest["files"], "tuning.safetensors"}  # which generate_tuning.py makes
    for old in FIXTURES.glob("*.safetensors"):
        if old.name not in made:
            old.unlink()
    generate_random.main(str(HERE))
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    cases, size = (sum(file[key] for file in manifest["files"].values()) for key in ["cases", "bytes"])
    print(f"{cases} cases, {size} bytes")
    for kind, error in recorder.worst.items():
        print(f"PyTorch's own f32 kernels, {kind}: {error:.1e}")
