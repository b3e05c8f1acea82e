"""Rewrites fixtures/heads.safetensors with transformers: logits, loss and every gradient of heads, and ten steps on a
frozen body.

Run by hand, with transformers 5.24 and PyTorch 2.13: `python3 tests/golden/generate_heads.py`.
GPT2ForSequenceClassification and GPT2DoubleHeadsModel compute in f64 from weights that f32 represents. GPT-1's heads
are implemented here on transformers' GPT2Model, following the paper and openai/finetune-transformer-lm's train.py. Also
writes fixtures/heads/FOLDER, saved by transformers.

w.NAME are the body's weights (matrices are (out, in)), shared by all cases; CASE.h.NAME are the head's. CASE.rows is
(rows, sequences, T), padded with -1. Results are CASE.logits, CASE.loss, CASE.grad.NAME, and CASE.grad.task.NAME for
the head.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
import transformers
from transformers import GPT2Config, GPT2DoubleHeadsModel, GPT2ForSequenceClassification, GPT2Model

sys.dont_write_bytecode = True
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

from fixture import Fixture

HERE = pathlib.Path(__file__).parent / "fixtures"
random = np.random.Generator(np.random.PCG64(20261130))
SIZES = {"vocabSize": 19, "blockSize": 16, "nLayer": 2, "nHead": 2, "nEmbd": 8, "bias": True, "activation": "gelu_new"}
PAD, START, DELIMITER, EXTRACT = 0, 16, 17, 18
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
LM = 0.5


def config(**more):
    sizes = {"vocab_size": 19, "n_positions": 16, "n_layer": 2, "n_head": 2, "n_embd": 8}
    dropouts = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "summary_first_dropout": 0.0}
    ids = {"bos_token_id": None, "eos_token_id": None}
    return GPT2Config(**sizes, **dropouts, **ids, attn_implementation="eager", **more)


def draw(shape, centre=0.0):
    return torch.from_numpy(np.asarray(centre + 0.3 * random.standard_normal(tuple(shape)), np.float32))


BODY = {
    name: draw(parameter.shape, 1.0 if ".ln_" in f".{name}" and name.endswith("weight") else 0.0)
    for name, parameter in GPT2Model(config()).named_parameters()
}


def fill(model, prefix="transformer."):
    """Loads the shared weights into the body and new ones into the head. Computes in f64."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            body = name.removeprefix(prefix)
            parameter.copy_(BODY[body] if name.startswith(prefix) else draw(parameter.shape))
    return model.double().train()


class Openai(torch.nn.Module):
    """A head of GPT-1: scores of pooled states, with a bias. For two sequences the states are added; each choice has a score."""

    def __init__(self, kind, labels):
        super().__init__()
        self.kind = kind
        self.transformer = GPT2Model(config())
        self.head = torch.nn.Linear(8, 1 if kind == "choose" else labels)

    def forward(self, rows, labels):
        """`rows` is a list of lists of sequences, each ending in EXTRACT."""
        B, K = len(rows), len(rows[0])
        flat = [ids for row in rows for ids in row]
        T = max(len(ids) for ids in flat)
        tokens = torch.tensor([ids + [PAD] * (T - len(ids)) for ids in flat])
        hidden = self.transformer(tokens).last_hidden_state
        states = torch.stack([hidden[i, len(ids) - 1] for i, ids in enumerate(flat)]).view(B, K, -1)
        logits = self.head(states).squeeze(-1) if self.kind == "choose" else self.head(states.sum(1))
        scores = hidden @ self.transformer.wte.weight.T
        each = [F.cross_entropy(scores[i, : len(ids) - 1], torch.tensor(ids[1:])) for i, ids in enumerate(flat)]
        return logits, F.cross_entropy(logits, labels) + LM * torch.stack(each).mean()


def ids(length, low=1, high=16):
    return [int(id) for id in random.integers(low, high, length)]


def record(fixture, name, rows, labels, logits, loss, model, head, case):
    """Runs backward and records a case. `head` maps PyTorch's names of a head's parameters to ours."""
    number = len(fixture.cases)
    loss.backward()
    K, T = max(len(row) for row in rows), max(len(ids) for row in rows for ids in row)
    padded = np.full((len(rows), K, T), -1)
    for i, row in enumerate(rows):
        for k, one in enumerate(row):
            padded[i, k, : len(one)] = one
    fixture.put(f"{number}.rows", padded)
    fixture.put(f"{number}.labels", np.array(labels, np.float64))
    fixture.put(f"{number}.logits", logits)
    fixture.put(f"{number}.loss", loss)
    for key, parameter in model.named_parameters():
        if key in head:
            fixture.put(f"{number}.h.{head[key]}", parameter.float())
            fixture.put(f"{number}.grad.task.{head[key]}", parameter.grad)
        else:
            fixture.put(f"{number}.grad.{key}", parameter.grad.T if key.endswith(TRANSPOSED) else parameter.grad)
    fixture.cases.append({"name": name, **case})


def classifiers(fixture):
    """transformers' classifier with each kind of label; rows of several lengths, padded on the right."""
    score = {"score.weight": "score.weight"}
    for name, problem, count, labels in [
        ("one label of three", "single_label_classification", 3, [2, 0, 1, 1]),
        ("several labels", "multi_label_classification", 3, [[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
        ("a number", "regression", 1, [[0.5], [-1.25], [3.0], [0.0]]),
    ]:
        rows = [[ids(5)], [ids(1)], [ids(4) + [PAD, 7, PAD, PAD]], [ids(8)]]  # the third row is pooled at token 7
        model = fill(GPT2ForSequenceClassification(config(num_labels=count, problem_type=problem, pad_token_id=PAD)))
        tokens = torch.tensor([row + [PAD] * (8 - len(row)) for (row,) in rows])
        given = torch.tensor(labels) if problem.startswith("single") else torch.tensor(labels, dtype=torch.float64)
        out = model(tokens, labels=given)
        case = {"kind": "classify", "problemType": problem, "count": count, "padTokenId": PAD, "lmWeight": 0}
        record(fixture, name, rows, labels, out.logits, out.loss, model, score, case)


def choices(fixture):
    """transformers' two heads. The caller adds the losses; the language model's is the mean over all tokens of the batch."""
    model = fill(GPT2DoubleHeadsModel(config(pad_token_id=PAD)))
    rows = [[ids(6) for _ in range(3)] for _ in range(2)]
    tokens = torch.tensor(rows)
    out = model(tokens, mc_token_ids=torch.full((2, 3), 5), labels=tokens, mc_labels=torch.tensor([2, 0]))
    names = {f"multiple_choice_head.summary.{part}": f"multiple_choice_head.summary.{part}" for part in ("weight", "bias")}
    loss, case = out.mc_loss + LM * out.loss, {"kind": "choose", "problemType": "single_label_classification", "count": 3}
    record(fixture, "choices", rows, [2, 0], out.mc_logits, loss, model, names, {**case, "lmWeight": LM})


def openai(fixture):
    marked = lambda *parts: [START] + [id for i, part in enumerate(parts) for id in ([DELIMITER] if i else []) + part] + [EXTRACT]
    texts = lambda n: [ids(random.integers(1, 6)) for _ in range(n)]
    both = lambda a, b: [marked(a, b), marked(b, a)]
    made = {
        "classify": [[marked(*texts(1))] for _ in range(3)],
        "entail": [[marked(*texts(2))] for _ in range(3)],
        "similar": [both(*texts(2)) for _ in range(3)],
        "choose": [[marked(context, answer) for answer in texts(3)] for context in texts(3)],
    }
    for kind, rows in made.items():
        model = fill(Openai(kind, 3))
        labels = [int(label) for label in random.integers(0, 3, 3)]
        logits, loss = model(rows, torch.tensor(labels))
        ours = "multiple_choice_head.summary" if kind == "choose" else "score"
        names = {f"head.{part}": f"{ours}.{part}" for part in ("weight", "bias")}
        tokens = {"start": START, "delimiter": DELIMITER, "extract": EXTRACT}
        case = {"kind": kind, "problemType": "single_label_classification", "count": 3, "tokens": tokens, "lmWeight": LM}
        record(fixture, f"GPT-1, {kind}", rows, labels, logits, loss, model, names, case)


def steps(fixture):
    """Ten updates of two micro-batches of three rows: with a frozen body, and with one more layer unfrozen every three updates."""
    count, decay, factor, every, betas = 3, 0.1, 1 / 2.6, 3, (0.9, 0.99)
    # A low rate, because Adam scales up tiny gradients together with their rounding errors.
    for name, gradual, rate in [("ten steps of a frozen body", False, 5e-3), ("ten steps, unfrozen layer by layer", True, 1e-3)]:
        number = len(fixture.cases)
        model = fill(GPT2ForSequenceClassification(config(num_labels=count, problem_type="single_label_classification", pad_token_id=PAD)))
        rows, labels = [[ids(7)] for _ in range(60)], [int(label) for label in random.integers(0, count, 60)]
        fixture.put(f"{number}.rows", np.array(rows))
        fixture.put(f"{number}.labels", np.array(labels, np.float64))
        fixture.put(f"{number}.h.score.weight", model.score.weight.float())
        body = dict(model.transformer.named_parameters())
        layers = [[model.score.weight]] + [
            [p for n, p in body.items() if n.startswith(f"h.{1 - i}.") or (i == 0 and n.startswith("ln_f"))] for i in range(2)
        ] + [[p for n, p in body.items() if n.startswith(("wte", "wpe"))]]
        groups = []
        for depth, layer in enumerate(layers if gradual else layers[:1]):
            for parameter in layer:
                decays = decay if parameter.dim() >= 2 else 0.0
                groups.append({"params": [parameter], "lr": rate * factor**depth if gradual else rate, "weight_decay": decays, "depth": depth})
        optimizer = torch.optim.AdamW(groups, betas=betas)
        losses, norms = [], []
        for step in range(10):
            for depth, layer in enumerate(layers):
                for parameter in layer:
                    parameter.requires_grad_(depth == 0 or (gradual and step >= depth * every))
            optimizer.zero_grad()  # sets gradients to None: the optimizer then skips these parameters
            halves = []
            for half in range(2):
                at = slice(6 * step + 3 * half, 6 * step + 3 * half + 3)
                out = model(torch.tensor(rows[at])[:, 0], labels=torch.tensor(labels[at]))
                (out.loss / 2).backward()
                halves.append(out.loss.item())
            losses.append(sum(halves) / 2)
            trained = [p for p in model.parameters() if p.grad is not None]
            norms.append(torch.nn.utils.clip_grad_norm_(trained, 1.0).item())
            optimizer.step()
        assert min(norms) < 1 < max(norms), norms
        fixture.put(f"{number}.losses", np.array(losses))
        fixture.put(f"{number}.norms", np.array(norms))
        fixture.put(f"{number}.p.score.weight", model.score.weight)
        if gradual:
            for key, parameter in model.transformer.named_parameters():
                fixture.put(f"{number}.p.transformer.{key}", parameter.T if key.endswith(TRANSPOSED) else parameter)
        fixture.cases.append(
            {"name": name, "kind": "classify", "problemType": "single_label_classification", "count": count, "lmWeight": 0,
             "steps": 10, "learningRate": rate, "weightDecay": decay, "betas": betas, "gradClip": 1.0,
             **({"layerDecay": factor, "unfreezeEvery": every} if gradual else {})}
        )  # fmt: skip


def folders():
    """Folders saved by transformers, and the results of its pipelines on texts."""
    for name in ("classifier", "several", "choices"):
        shutil.rmtree(HERE / "heads" / name, ignore_errors=True)
    letters = [chr(97 + i) for i in range(18)] + [" "]
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="<unk>"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    fast.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, clean_up_tokenization_spaces=False)
    names = {0: "good", 1: "bad", 2: "neither"}
    labels = {"id2label": names, "label2id": {label: id for id, label in names.items()}, "pad_token_id": PAD}
    made = {
        "classifier": GPT2ForSequenceClassification(config(problem_type="single_label_classification", **labels)),
        "several": GPT2ForSequenceClassification(config(problem_type="multi_label_classification", **labels)),
        "choices": GPT2DoubleHeadsModel(config()),
    }
    texts = ["fed a cab", "bead", "no head ab", {"text": "decade", "text_pair": "fed"}]
    expected = {"transformers": transformers.__version__, "torch": torch.__version__, "texts": texts}
    for name, model in made.items():
        folder = HERE / "heads" / name
        fill(model).float().eval().save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        tokenizer.save_pretrained(folder)
        for file in folder.glob("*.json"):
            file.write_text(file.read_text().rstrip() + "\n")
        if name == "choices":
            with torch.no_grad():
                out = model(torch.tensor([[[1, 2, 3], [4, 5, 6]]]))
            expected[name] = {"tokens": [[1, 2, 3], [4, 5, 6]], "scores": out.mc_logits[0].tolist()}
            continue
        classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
        extract = transformers.pipeline("feature-extraction", model=model.transformer, tokenizer=tokenizer)
        expected[name] = {
            "one": classify(texts[0]),
            "pair": classify(texts[3]),
            "texts": classify(texts),
            "top2": classify(texts, top_k=2),
            "all": classify(texts[0], top_k=None),
            "sigmoid": classify(texts[:3], function_to_apply="sigmoid", top_k=None),
            "none": classify(texts[:3], function_to_apply="none"),
            "features": extract(texts[1]),
        }
    (HERE / "heads" / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    folders()
    fixture = Fixture()
    for name, weight in BODY.items():
        fixture.put(f"w.transformer.{name}", weight.T if name.endswith(TRANSPOSED) else weight)
    classifiers(fixture)
    choices(fixture)
    openai(fixture)
    steps(fixture)
    fixture.write(HERE / "heads.safetensors")
    print(len(fixture.cases), (HERE / "heads.safetensors").stat().st_size)
