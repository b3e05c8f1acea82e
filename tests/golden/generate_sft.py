"""Rewrites fixtures/sft.safetensors: ten updates of supervised tuning by TRL's SFTTrainer, with a tiny GPT-2 of
transformers.

Run by hand, with TRL 1.16, transformers 5.24 and PyTorch 2.13: `python3 tests/golden/generate_sft.py`.

TRL computes the loss in f32. So a twin of its trainer repeats each update in f64 on the same batches: the loss is the
sum over labels divided by the update's number of labels, then clipping, AdamW and a linear schedule. After each update
the two must agree. The fixture has the twin's results. CASE.ids and CASE.learned are the rows one after the other, with
lengths from the case; w.NAME are the weights under nanoGPT's names. The first update has CASE.logits (of the first
micro-batch's tokens without padding, in order) and CASE.g.NAME. CASE.losses, CASE.norms, CASE.entropy,
CASE.mean_token_accuracy and CASE.num_tokens have one number for each update; CASE.p.NAME are the parameters after the
last one. The entropy and the accuracy are means over the update's labels; TRL logs means of the micro-batches' means.
"""

import hashlib
import json
import pathlib
import sys
import tempfile

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
import transformers
import trl
from datasets import Dataset, disable_progress_bars
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

sys.dont_write_bytecode = True
from fixture import Fixture

disable_progress_bars()
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
random = np.random.Generator(np.random.PCG64(20261130))

V, LENGTH, STEPS, WARMUP, RATE, DECAY, BETAS, CLIP = 19, 16, 10, 2, 5e-3, 0.1, (0.9, 0.999), 0.9
BATCH, ACCUMULATION = 2, 3
MEASURES = ["entropy", "mean_token_accuracy"]
SIZES = {"vocabSize": V, "blockSize": LENGTH, "nLayer": 2, "nHead": 2, "nEmbd": 8, "bias": True, "dropout": 0}
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def new_model():
    sizes = {"vocab_size": V, "n_positions": LENGTH, "n_embd": 8, "n_layer": 2, "n_head": 2}
    none = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **none, attn_implementation="eager"))


def put(fixture, prefix, name, values):
    fixture.put(f"{prefix}.{name}", values.T if name.endswith(TRANSPOSED) else values)


class Twin:
    """Repeats TRL's updates in f64, on the batches that its trainer draws."""

    def __init__(self, weights):
        self.model = new_model().double()
        self.model.load_state_dict({name: weight.double() for name, weight in weights.items()})
        names = dict(self.model.named_parameters())
        groups = [
            {"params": [one for one in names.values() if one.dim() >= 2], "weight_decay": DECAY},
            {"params": [one for one in names.values() if one.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
        self.losses, self.norms, self.loss, self.logits, self.gradients = [], [], 0.0, None, None
        self.parts, self.measures = [], []

    def micro_batch(self, input_ids, labels, position_ids=None, attention_mask=None, count=None, **_):
        logits = self.model(input_ids, position_ids=position_ids, attention_mask=attention_mask, use_cache=False).logits  # a cache would let packed documents see each other
        assert logits.dtype == torch.float64
        if self.logits is None:
            self.logits = logits.detach()[attention_mask.bool() if attention_mask is not None else torch.ones_like(input_ids).bool()]
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum") / count
        loss.backward()
        self.loss += loss.item()
        seen = labels[:, 1:] != -100
        likely, targets = logits.detach()[:, :-1][seen].log_softmax(-1), labels[:, 1:][seen]
        right = (likely.argmax(-1) == targets).double()
        self.parts.append(torch.stack([-(likely.exp() * likely).sum(-1), right]))  # (2, labels)

    def update(self):
        parameters = dict(self.model.named_parameters())
        step = len(self.losses)
        if step == 0:
            self.gradients = {name: one.grad.clone() for name, one in parameters.items()}
        rate = RATE * (step / WARMUP if step < WARMUP else (STEPS - step) / (STEPS - WARMUP))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP).item())
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(self.loss)
        means = torch.stack([part.mean(1) for part in self.parts]).mean(0)
        self.measures.append((torch.cat(self.parts, 1).mean(1), means))
        self.parts, self.loss = [], 0.0


class Watched(SFTTrainer):
    def compute_loss(self, model, inputs, num_items_in_batch=None, **options):
        self.twin.micro_batch(**inputs, count=num_items_in_batch)
        return super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch, **options)


class AfterStep(transformers.TrainerCallback):
    def __init__(self, twin):
        self.twin = twin

    def on_step_end(self, args, state, control, model, **_):
        self.twin.update()
        for (name, one), other in zip(model.named_parameters(), self.twin.model.parameters()):
            off = (one - other).abs()
            if name.endswith("c_attn.bias"):
                off[8:16] = 0  # the gradient of the keys' biases is 0, and Adam scales its rounding errors
            assert off.max() < 1e-5, (name, off.max())


def record(fixture, weights, name, rows, packing):
    number = len(fixture.cases)
    ids = [random.integers(1, V, length).tolist() for length, _ in rows]
    learned = [[0] * prompt + [1] * (length - prompt) for length, prompt in rows]
    model = new_model()
    model.load_state_dict(weights)
    twin = Twin(weights)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(V)}, unk_token="0"))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Watched(
            model=model,
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                gradient_accumulation_steps=ACCUMULATION,
                max_length=LENGTH,
                packing=packing,
                completion_only_loss=True,
                max_steps=STEPS,
                learning_rate=RATE,
                lr_scheduler_type="linear",
                warmup_steps=WARMUP,
                weight_decay=DECAY,
                adam_beta2=BETAS[1],
                max_grad_norm=CLIP,
                train_sampling_strategy="sequential",
                bf16=False,
                gradient_checkpointing=False,
                use_cpu=True,
                logging_steps=1,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"input_ids": ids, "completion_mask": learned}),
            processing_class=PreTrainedTokenizerFast(tokenizer_object=words, eos_token="0", pad_token="0"),
            callbacks=[AfterStep(twin)],
        )
        trainer.twin = twin
        trainer.train()
    logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(logged) == len(twin.losses) == STEPS
    assert np.allclose([entry["loss"] for entry in logged], twin.losses, atol=1e-5), (logged, twin.losses)
    assert np.allclose([entry["grad_norm"] for entry in logged], twin.norms, rtol=1e-4)
    for i, measure in enumerate(MEASURES):
        theirs = [means[i] for _, means in twin.measures]
        assert np.allclose([entry[measure] for entry in logged], theirs, atol=1e-5), (measure, logged, theirs)
        fixture.put(f"{number}.{measure}", np.array([mean[i] for mean, _ in twin.measures]))
    fixture.put(f"{number}.num_tokens", np.array([entry["num_tokens"] for entry in logged]))
    assert min(twin.norms) < CLIP < max(twin.norms), twin.norms  # some updates clip, some do not
    fixture.put(f"{number}.ids", np.concatenate(ids))
    fixture.put(f"{number}.learned", np.concatenate(learned))
    fixture.put(f"{number}.logits", twin.logits)
    fixture.put(f"{number}.losses", np.array(twin.losses))
    fixture.put(f"{number}.norms", np.array(twin.norms))
    for key, parameter in twin.model.named_parameters():
        put(fixture, f"{number}.g", key, twin.gradients[key])
        put(fixture, f"{number}.p", key, parameter)
    fixture.cases.append({"name": name, "packing": packing, "lengths": [length for length, _ in rows]})


if __name__ == "__main__":
    fixture = Fixture()
    model = new_model()
    weights = {}
    for name, parameter in model.named_parameters():
        centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
        weights[name] = torch.from_numpy(np.asarray(centre + 0.3 * random.standard_normal(tuple(parameter.shape)), np.float32))
        put(fixture, "w", name, weights[name])
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    # (tokens, tokens of the prompt): 13 rows are two updates of 3 micro-batches of 2 rows, and a third update with one row.
    rows = [(4, 2), (15, 7), (7, 3), (3, 1), (6, 5), (9, 2), (16, 4), (2, 1), (5, 2), (8, 6), (11, 9), (3, 2), (4, 1)]
    record(fixture, weights, "completions, padded", rows, packing=False)
    record(fixture, weights, "completions, packed", rows + [(5, 3), (6, 1), (2, 1), (7, 2)], packing=True)
    record(fixture, weights, "whole texts, packed", [(length, 0) for length, _ in rows], packing=True)
    common = {"config": {**SIZES, "activation": "gelu_new"}, "maxLength": LENGTH, "batchSize": BATCH, "maxIters": STEPS}
    common |= {"gradientAccumulationSteps": ACCUMULATION, "warmupIters": WARMUP, "learningRate": RATE, "weightDecay": DECAY}
    common |= {"beta1": BETAS[0], "beta2": BETAS[1], "gradClip": CLIP}
    fixture.cases = [{**common, **case} for case in fixture.cases]
    path = pathlib.Path(__file__).parent / "fixtures" / "sft.safetensors"
    if fixture.write(path):
        data, manifest = path.read_bytes(), path.parent.parent / "manifest.json"
        versions = {package.__name__: package.__version__ for package in (torch, np, transformers, trl)}
        entry = {"cases": len(fixture.cases), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **versions}
        files = {**json.loads(manifest.read_text()), path.name: entry}
        manifest.write_text(json.dumps(dict(sorted(files.items())), indent=2) + "\n")
