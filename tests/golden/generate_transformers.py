"""Rewrites fixtures/transformers/: features, losses and generated tokens of transformers' GPT-2.

Run by hand, with transformers 5.23 and PyTorch 2.13: `python3 tests/golden/generate_transformers.py`. The model is tiny
and its weights are random; it computes in f64 from weights that f32 represents. Noise is computed from MT19937 words by
the rules of PyTorch's own multinomial on processors that are not Intel's.
"""

import functools
import math
import pathlib

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
import transformers
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation import logits_process as lp

from fixture import Fixture

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE / "fixtures" / "transformers"
random = np.random.Generator(np.random.PCG64(20261124))
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

SIZES = {"vocabSize": 23, "blockSize": 24, "nLayer": 2, "nHead": 3, "nEmbd": 12, "bias": True, "dropout": 0}
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def tiny_model(scale):
    """A GPT-2 with the exact GELU, as in nanoGPT."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=SIZES["vocabSize"],
            n_positions=SIZES["blockSize"],
            n_embd=SIZES["nEmbd"],
            n_layer=SIZES["nLayer"],
            n_head=SIZES["nHead"],
            activation_function="gelu",
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation="eager",
        )
    )
    model.double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Large position embeddings and token embeddings of equal norm, so that a tied model does not repeat one token.
            factor = scale * (0.1 if name.endswith("bias") else 4 if ".wpe." in name else 1)
            drawn = np.asarray(random.standard_normal(tuple(parameter.shape)) * factor, np.float32)
            if ".wte." in name:
                drawn *= 4 * scale / np.linalg.norm(drawn, axis=1, keepdims=True)
            parameter.copy_(torch.from_numpy(drawn) + (1 if ".ln_" in name and name.endswith("weight") else 0))
            parameter.copy_(parameter.float())
    return model


def put_weights(fixture, model):
    """w.NAME under nanoGPT's names: matrices are (out, in), where transformers' Conv1D has (in, out)."""
    for name, parameter in model.named_parameters():
        weight = parameter.detach().float()
        fixture.put(f"w.{name}", weight.T if name.endswith(TRANSPOSED) else weight)


# --- features and losses ---


def loss_of(out, labels):
    """The model's loss in f64. transformers itself computes it in f32."""
    loss = F.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    assert abs(loss - out.loss) < 1e-5, (loss, out.loss)
    return loss


def features(model):
    """CASE.tokens, CASE.labels; CASE.hidden.I, CASE.attention.I, CASE.key.I, CASE.value.I, CASE.logits, CASE.loss."""
    fixture = Fixture()
    put_weights(fixture, model)
    for name, B, T in [("whole blocks", 2, 24), ("one sequence", 1, 7), ("two tokens", 3, 2)]:
        number = len(fixture.cases)
        tokens = torch.from_numpy(random.integers(0, SIZES["vocabSize"], (B, T)))
        labels = tokens.clone()
        labels[0, 1 : T // 2] = -100
        with torch.no_grad():
            out = model(tokens, labels=labels, output_hidden_states=True, output_attentions=True, use_cache=True)
            body = model.transformer(tokens)
        assert torch.equal(body.last_hidden_state, out.hidden_states[-1])
        fixture.put(f"{number}.tokens", tokens)
        fixture.put(f"{number}.labels", labels)
        for i, state in enumerate(out.hidden_states):
            fixture.put(f"{number}.hidden.{i}", state)
        for i, (attention, layer) in enumerate(zip(out.attentions, out.past_key_values.layers, strict=True)):
            fixture.put(f"{number}.attention.{i}", attention)
            fixture.put(f"{number}.key.{i}", layer.keys)
            fixture.put(f"{number}.value.{i}", layer.values)
        fixture.put(f"{number}.logits", out.logits)
        fixture.put(f"{number}.loss", loss_of(out, labels))
        fixture.cases.append({"name": name, "config": SIZES})
    return fixture


def perplexities(model):
    """CASE.perplexity over `tokens`: the loop of the page "Perplexity of fixed-length models" in transformers' documentation."""
    fixture = Fixture()
    put_weights(fixture, model)
    tokens = torch.from_numpy(random.integers(0, SIZES["vocabSize"], (1, 101)))
    fixture.put("tokens", tokens[0])
    for length, max_length, stride in [
        (101, 24, 12),
        (101, 24, 24),
        (101, 24, 5),
        (101, 24, 2),
        (101, 10, 7),
        (101, 20, 20),  # the last window is a single token
        (96, 24, 12),
        (17, 24, 12),
        (2, 24, 12),
    ]:
        total, count, before = 0.0, 0, 0
        exact, judged = 0.0, 0
        for begin in range(0, length, stride):
            end = min(begin + max_length, length)
            ids = tokens[:, begin:end]
            targets = ids.clone()
            targets[:, : -(end - before)] = -100
            valid = (targets != -100).sum().item()
            scored = (targets[:, 1:] != -100).sum().item()
            if scored:  # the mean of no token is NaN
                with torch.no_grad():
                    loss = loss_of(model(ids, labels=targets), targets).item()
                total += loss * (valid - 1)
                count += valid - 1
                exact += loss * scored
                judged += scored
            before = end
            if end == length:
                break
        fixture.put(f"{len(fixture.cases)}.perplexity", np.array([math.exp(total / count)]))
        fixture.put(f"{len(fixture.cases)}.loss", np.array([exact / judged]))
        fixture.cases.append(
            {
                "name": f"{length} tokens, windows of {max_length}, stride {stride}",
                "config": SIZES,
                "length": length,
                "maxLength": max_length,
                "stride": stride,
                "judged": judged,
            }
        )
    return fixture


# --- processors and generation ---


class FrequencyPenalty(lp.LogitsProcessor):
    """mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence, over the tokens after the prompt."""

    def __init__(self, prompt, frequency, presence):
        self.prompt, self.frequency, self.presence = prompt, frequency, presence

    def __call__(self, input_ids, scores):
        counts = torch.stack([torch.bincount(row[self.prompt :], minlength=scores.shape[-1]) for row in input_ids])
        counts = counts.to(scores.dtype)
        return scores - counts * self.frequency - (counts > 0).to(scores.dtype) * self.presence


def processors():
    """CASE.tokens, CASE.logits and CASE.scores, for each processor and for several together in generate's order."""
    fixture = Fixture()
    V = 40
    tokens = random.integers(0, V, 30)
    plain = np.asarray(random.standard_normal(V) * 3, np.float32)
    ties = np.asarray(np.round(random.standard_normal(V) * 2) / 2, np.float32)
    flat, peaked = np.zeros(V, np.float32), np.asarray(random.standard_normal(V) * 30, np.float32)
    prompt, sort = 11, torch.sort

    def made(o):
        """The processors that generate would create, in its order."""
        made = []
        if "logitBias" in o:
            made.append(lp.SequenceBiasLogitsProcessor([[[int(id)], bias] for id, bias in o["logitBias"].items()]))
        if "repetitionPenalty" in o:
            made.append(lp.RepetitionPenaltyLogitsProcessor(o["repetitionPenalty"]))
        if "frequencyPenalty" in o or "presencePenalty" in o:
            made.append(FrequencyPenalty(prompt, o.get("frequencyPenalty", 0), o.get("presencePenalty", 0)))
        if "temperature" in o:
            made.append(lp.TemperatureLogitsWarper(o["temperature"]))
        if "topK" in o:
            made.append(lp.TopKLogitsWarper(o["topK"]))
        if "topP" in o:
            made.append(lp.TopPLogitsWarper(o["topP"]))
        if "minP" in o:
            made.append(lp.MinPLogitsWarper(o["minP"]))
        return made

    for kind, logits, options in [
        ("plain", plain, {"temperature": 0.7}),
        ("plain", plain, {"temperature": 3.5}),
        ("plain", plain, {"topK": 1}),
        ("plain", plain, {"topK": 7}),
        ("plain", plain, {"topK": 100}),
        ("ties", ties, {"topK": 7}),
        ("flat", flat, {"topK": 7}),
        ("plain", plain, {"topP": 0.9}),
        ("plain", plain, {"topP": 0.3}),
        ("plain", plain, {"topP": 0.0}),
        ("plain", plain, {"topP": 0.999999}),
        ("ties", ties, {"topP": 0.9}),
        ("flat", flat, {"topP": 0.51}),
        ("peaked", peaked, {"topP": 0.95}),
        ("plain", plain, {"minP": 0.05}),
        ("plain", plain, {"minP": 0.6}),
        ("plain", plain, {"minP": 1.0}),
        ("flat", flat, {"minP": 1.0}),
        ("peaked", peaked, {"minP": 1e-6}),
        ("plain", plain, {"repetitionPenalty": 1.3}),
        ("plain", plain, {"repetitionPenalty": 0.6}),
        ("plain", plain, {"frequencyPenalty": 0.7}),
        ("plain", plain, {"presencePenalty": 1.5}),
        ("plain", plain, {"frequencyPenalty": -0.4, "presencePenalty": 0.9}),
        ("plain", plain, {"logitBias": {"3": 5.0, "17": -100.0, "0": 0.25}}),
        ("plain", plain, {"repetitionPenalty": 1.2, "temperature": 0.8, "topK": 20, "topP": 0.8, "minP": 0.1}),
        (
            "plain",
            plain,
            {
                "logitBias": {"5": 4.0, "6": -3.0},
                "repetitionPenalty": 1.4,
                "frequencyPenalty": 0.3,
                "presencePenalty": 0.6,
                "temperature": 1.7,
                "topK": 25,
                "topP": 0.9,
                "minP": 0.02,
            },
        ),
        ("peaked", peaked, {"repetitionPenalty": 2.0, "temperature": 5.0, "topP": 0.7, "topK": 3}),
    ]:
        number = len(fixture.cases)
        scores = torch.from_numpy(logits).double()[None]
        torch.sort = functools.partial(sort, stable=True)  # otherwise top-p's choice among equal scores is random
        for processor in made(options):
            scores = processor(torch.from_numpy(tokens)[None], scores)
        torch.sort = sort
        fixture.put(f"{number}.tokens", tokens)
        fixture.put(f"{number}.logits", logits)
        fixture.put(f"{number}.scores", scores[0])
        fixture.cases.append({"name": f"{kind}, {options}", "prompt": prompt, "options": options})
    return fixture


class Noise:
    """Replaces torch.multinomial, and records the smallest margin of a choice."""

    def __init__(self, seed):
        self.words, self.margin = np.random.RandomState(seed), math.inf

    def __call__(self, probabilities, num_samples):
        assert num_samples == 1
        n = probabilities.numel()
        words = self.words.randint(0, 2**32, 2 * n, np.uint32).astype(np.uint64)
        uniform = ((words[0::2] << np.uint64(32) | words[1::2]) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
        noise = torch.from_numpy((-np.log1p(-uniform)).astype(np.float32)).reshape(probabilities.shape)
        shares = probabilities / noise
        two = shares.topk(2, dim=-1).values
        self.margin = min(self.margin, (1 - two[:, 1] / two[:, 0]).min().item())
        return shares.argmax(-1, keepdim=True)


NAMES = {
    "maxNewTokens": "max_new_tokens",
    "maxLength": "max_length",
    "temperature": "temperature",
    "topK": "top_k",
    "topP": "top_p",
    "minP": "min_p",
    "repetitionPenalty": "repetition_penalty",
    "numReturnSequences": "num_return_sequences",
    "eosTokenId": "eos_token_id",
}


def generation(model):
    """CASE.prompt; CASE.tokens.I of each sequence with its end token; CASE.logprobs.I, from the model's unprocessed logits."""
    fixture = Fixture()
    put_weights(fixture, model)
    own = torch.multinomial
    for options, seed, prompt in [
        ({"temperature": 0, "maxNewTokens": 20}, 0, [3, 1, 4]),
        ({"temperature": 0, "maxLength": 24}, 0, [22]),
        ({"temperature": 0, "maxNewTokens": 20, "repetitionPenalty": 1.5}, 0, [3, 1, 4]),
        ({"temperature": 0, "maxNewTokens": 20, "frequencyPenalty": 1.0, "presencePenalty": 0.5}, 0, [3, 1, 4]),
        ({"temperature": 0, "maxNewTokens": 12, "logitBias": {"7": 2.0, "1": -4.0}}, 0, [5, 5, 9]),
        ({"maxNewTokens": 20}, 42, [3, 1, 4]),
        ({"maxNewTokens": 18, "temperature": 0.8, "topK": 5}, 7, [0, 2]),
        ({"maxNewTokens": 18, "topP": 0.7}, 7, [0, 2]),
        ({"maxNewTokens": 18, "minP": 0.2, "temperature": 1.5}, 8, [0, 2]),
        ({"maxLength": 24, "numReturnSequences": 4}, 42, [8, 9, 10]),
        ({"maxLength": 24, "numReturnSequences": 5, "temperature": 0.9, "topK": 8, "eosTokenId": 12}, 43, [8, 9, 10]),
        ({"maxLength": 24, "numReturnSequences": 3, "topP": 0.8, "eosTokenId": [21, 8]}, 44, [8, 9, 10]),
        (
            {
                "maxLength": 22,
                "numReturnSequences": 3,
                "logitBias": {"4": 1.5},
                "repetitionPenalty": 1.2,
                "frequencyPenalty": 0.2,
                "presencePenalty": 0.1,
                "temperature": 1.2,
                "topK": 15,
                "topP": 0.9,
                "minP": 0.01,
                "eosTokenId": 14,
            },
            45,
            [11, 12],
        ),
    ]:
        number = len(fixture.cases)
        rest = {NAMES[name]: value for name, value in options.items() if name in NAMES and value != 0}
        if "logitBias" in options:
            rest["sequence_bias"] = [[[int(id)], bias] for id, bias in options["logitBias"].items()]
        if "frequencyPenalty" in options:
            penalty = FrequencyPenalty(len(prompt), options["frequencyPenalty"], options["presencePenalty"])
            rest["logits_processor"] = lp.LogitsProcessorList([penalty])
        if "temperature" in rest and options["temperature"] == 0:
            del rest["temperature"]
        noise = Noise(seed)
        torch.multinomial = noise
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=options.get("temperature") != 0,
            **{"top_k": 0, **rest},
            pad_token_id=SIZES["vocabSize"] - 1,
            output_logits=True,
            return_dict_in_generate=True,
        )
        torch.multinomial = own
        assert noise.margin > 1e-4, f"case {number}: a choice hangs on {noise.margin}; take another seed"
        ends = np.atleast_1d(options.get("eosTokenId", []))
        logprobs = torch.stack(out.logits, 1).log_softmax(-1)  # (B, steps, V)
        lengths = []
        for i, row in enumerate(out.sequences[:, len(prompt) :]):
            stops = np.flatnonzero(np.isin(row.numpy(), ends))
            length = int(stops[0]) + 1 if len(stops) else len(row)
            fixture.put(f"{number}.tokens.{i}", row[:length])
            fixture.put(f"{number}.logprobs.{i}", logprobs[i, torch.arange(length), row[:length]])
            lengths.append(length)
        fixture.put(f"{number}.prompt", np.array(prompt))
        fixture.cases.append({"name": f"seed {seed}, {options}, lengths {lengths}", "config": SIZES, "seed": seed, "options": options})
        print(number, lengths, f"{noise.margin:.1e}")
    return fixture


def pipelines(model):
    """Texts of transformers' own pipeline, with a tokenizer of 23 letters; the last letter ends a text."""
    fixture = Fixture()
    put_weights(fixture, model)
    letters = {chr(ord("a") + i): i for i in range(SIZES["vocabSize"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=letters, merges=[]))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w")
    generator = transformers.pipeline("text-generation", model=model, tokenizer=fast)
    own = torch.multinomial
    for seed, prompt, options, arguments in [
        (42, "dbe", {"maxLength": 24, "numReturnSequences": 5}, {"max_length": 24, "num_return_sequences": 5}),
        (9, "aaa", {"maxNewTokens": 21, "numReturnSequences": 9, "temperature": 2}, {"max_new_tokens": 21, "num_return_sequences": 9, "temperature": 2.0}),
        (7, "w", {"maxNewTokens": 12, "returnFullText": False}, {"max_new_tokens": 12, "return_full_text": False}),
        (1, "abcabc", {"maxNewTokens": 18, "doSample": False}, {"max_new_tokens": 18, "do_sample": False}),
    ]:
        torch.multinomial = noise = Noise(seed)
        texts = [result["generated_text"] for result in generator(prompt, **arguments, eos_token_id=22, pad_token_id=22)]
        torch.multinomial = own
        assert noise.margin > 1e-4, f"seed {seed}: a choice hangs on {noise.margin}; take another"
        case = {"name": f"{prompt}, {options}", "config": SIZES, "seed": seed, "prompt": prompt, "options": options, "texts": texts}
        fixture.cases.append(case)
        print(texts, f"{noise.margin:.1e}")
    return fixture


if __name__ == "__main__":
    FIXTURES.mkdir(parents=True, exist_ok=True)
    model, lively = tiny_model(0.4), tiny_model(0.3)
    for name, fixture in {
        "features": features(model),
        "perplexity": perplexities(model),
        "processors": processors(),
        "generation": generation(lively),
        "pipeline": pipelines(lively),
    }.items():
        fixture.write(FIXTURES / f"{name}.safetensors")
        print(name, len(fixture.cases), "cases,", (FIXTURES / f"{name}.safetensors").stat().st_size, "bytes")
