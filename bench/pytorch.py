"""Measures PyTorch for bench/gpu.ts, bench/peers.ts and bench/rows.ts. They send a line of JSON and read a line of JSON:

    {"kind": "product" | "training" | "decoding" | "memory", ...sizes, "precision": "f32" | "tf32" | "bf16", "seconds": 0.5}
    {"rate": products, steps or tokens a second}

The first line that this script prints is {"device": "..."}, or {"error": "..."} if it cannot run. Precisions: f32 with
TF32 off (the default), f32 with TF32 in products, and bf16, in training and decoding by autocast, as in nanoGPT.
The model is from tests/golden/pytorch_gpt.py, with PyTorch's fused attention and own dropout, and on a GPU its fused
AdamW, as in nanoGPT. It runs eagerly, or compiled in training. The kinds of decoding with a cache are in
transformers_decoding.py.

    python3 bench/pytorch.py cuda|cpu [--threads=2] [--compile] [--transformers]
"""

import argparse
import contextlib
import json
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from pytorch_train import OwnNoise, fused_attention, pytorch_gpt

    if "--transformers" in sys.argv:
        import transformers_decoding
except ImportError as error:
    print(json.dumps({"error": f"{error}: pip install torch transformers"}))
    sys.exit()


class Product:
    def __init__(self, device, precision, form, M, K, N):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.a = torch.rand(K, M, device=device).sub(0.5).to(dtype).T if form == "TN" else torch.rand(M, K, device=device).sub(0.5).to(dtype)
        self.b = torch.rand(N, K, device=device).sub(0.5).to(dtype).T if form == "NT" else torch.rand(K, N, device=device).sub(0.5).to(dtype)
        self.c = torch.empty(M, N, device=device, dtype=dtype)

    def run(self):
        torch.mm(self.a, self.b, out=self.c)
        return 1


class Memory:
    def __init__(self, device, precision, bytes, **_):
        self.values = torch.ones(bytes // 4, device=device)

    def run(self):
        self.values.sum()
        return 1


def gpt(device, sizes):
    names = {"blockSize": "block_size", "vocabSize": "vocab_size", "nLayer": "n_layer", "nHead": "n_head", "nEmbd": "n_embd"}
    return pytorch_gpt.GPT(pytorch_gpt.GPTConfig(**{names.get(name, name): value for name, value in sizes.items()})).to(device)


def autocast(device, precision):
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


class Training:
    def __init__(self, device, precision, batchSize, logInterval, **sizes):
        self.device, self.precision, self.log_interval = device, precision, logInterval
        self.model = gpt(device, sizes)
        self.forward = torch.compile(self.model) if COMPILE else self.model
        self.optimizer = self.model.optimizer(0.1, 1e-3, (0.9, 0.99))
        for group in self.optimizer.param_groups:
            group["fused"] = device == "cuda"
        self.data = torch.randint(sizes["vocabSize"], (100_000,))
        self.size = batchSize, sizes["blockSize"]
        self.batch = self.draw()

    def draw(self):
        at = torch.randint(len(self.data) - self.size[1], (self.size[0],))
        rows = [torch.stack([self.data[i + d:i + d + self.size[1]] for i in at]) for d in (0, 1)]
        if self.device == "cuda":
            return [ids.pin_memory().to(self.device, non_blocking=True) for ids in rows]
        return rows

    def run(self):
        for step in range(self.log_interval):  # then the loss is read, as when nanoGPT logs it
            with autocast(self.device, self.precision):
                _, loss = self.forward(*self.batch)
            self.batch = self.draw()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        loss.item()
        return self.log_interval


class Adapter(Training):
    """PEFT's LoRA on c_attn."""

    def __init__(self, device, precision, rank, **sizes):
        import peft  # imported here, so that the other kinds work without it

        super().__init__(device, precision, **sizes)
        options = peft.LoraConfig(r=rank, target_modules=["c_attn"])
        self.forward = self.model = peft.get_peft_model(self.model, options)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, 1e-3, (0.9, 0.99), fused=device == "cuda")


class Decoding:
    """nanoGPT's generate, which has no cache: every token costs a forward pass over all tokens so far."""

    def __init__(self, device, precision, **sizes):
        self.device, self.precision, self.length = device, precision, sizes["blockSize"]
        self.model = gpt(device, {**sizes, "dropout": 0.0})

    @torch.no_grad()
    def run(self):
        ids = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        while ids.shape[1] < self.length:
            with autocast(self.device, self.precision):
                logits = self.model(ids)[0][:, -1].float() / 0.8
            least = torch.topk(logits, min(200, logits.shape[-1])).values[:, [-1]]
            probabilities = F.softmax(logits.masked_fill(logits < least, -torch.inf), -1)
            ids = torch.cat((ids, torch.multinomial(probabilities, 1)), 1)
        return self.length - 1


COMPILE = False
KINDS = {"product": Product, "training": Training, "adapter": Adapter, "decoding": Decoding, "memory": Memory}


def measure(subject, wait, seconds):
    """Returns products, steps or tokens a second. Doubles the number of runs between two waits until they take long enough."""
    if hasattr(subject, "rate"):  # the subject measures by itself
        return subject.rate(seconds)
    subject.rounds = getattr(subject, "rounds", 1)
    while True:
        begin = time.perf_counter()
        pieces = sum(subject.run() for _ in range(subject.rounds))
        wait()
        passed = time.perf_counter() - begin
        if passed >= seconds:
            return pieces / passed
        subject.rounds *= 2


def answer(subjects, device, wait, seconds, kind, precision="f32", **sizes):
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        if (key := json.dumps([kind, precision, sizes])) not in subjects:
            if len(subjects) == 3:  # only the latest subject is needed, in three precisions
                subjects.clear()
            subjects[key] = KINDS[kind](device, precision, **sizes)
        return {"rate": measure(subjects[key], wait, seconds)}
    except Exception as error:  # no compiler, or no memory: other requests go on
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}


def main():
    global COMPILE
    parser = argparse.ArgumentParser()
    parser.add_argument("device")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--transformers", action="store_true")
    flags = parser.parse_args()
    device, name, COMPILE = flags.device, f"PyTorch {torch.__version__}", flags.compile
    if device == "cuda" and not torch.cuda.is_available():
        return print(json.dumps({"error": f"PyTorch {torch.__version__} sees no CUDA device"}))
    if flags.threads:
        torch.set_num_threads(flags.threads)
    if flags.transformers:
        KINDS.update(transformers_decoding.KINDS)
        name = f"transformers {transformers_decoding.version}, {name}"
    if device == "cuda":
        where = f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"
    else:
        where = f"{device}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    print(json.dumps({"device": f"{name}, {where}"}), flush=True)
    pytorch_gpt.causal_attention, pytorch_gpt.Noise = fused_attention, OwnNoise
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    subjects = {}
    for line in sys.stdin:
        print(json.dumps(answer(subjects, device, wait, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
