"""Decoding with transformers' key-value cache, for bench/pytorch.py: GPT-2 with random weights, in f32."""

import time

import torch
import torch.nn.functional as F
import transformers

version = transformers.__version__


class Decoding:
    def __init__(self, device, precision, blockSize, vocabSize, nLayer, nHead, nEmbd, **_):
        assert precision == "f32", precision
        sizes = dict(n_positions=blockSize, vocab_size=vocabSize, n_layer=nLayer, n_head=nHead, n_embd=nEmbd)
        config = transformers.GPT2Config(**sizes, activation_function="gelu", bos_token_id=None, eos_token_id=None)
        self.model = transformers.GPT2LMHeadModel(config).to(device).eval()
        self.start = torch.zeros(1, 1, dtype=torch.long, device=device)
        self.more, self.top_k = blockSize - 1, min(200, vocabSize)


class Generate(Decoding):
    """Decodes with generate(), as a user would."""

    @torch.no_grad()
    def run(self):
        mask = torch.ones_like(self.start)
        ways = dict(do_sample=True, temperature=0.8, top_k=self.top_k, max_new_tokens=self.more, pad_token_id=0)
        ids = self.model.generate(self.start, attention_mask=mask, **ways)
        assert ids.shape[1] == 1 + self.more
        return self.more


class Loop(Decoding):
    """Decodes in a bare loop that calls only the model, without the other work that generate() does."""

    @torch.no_grad()
    def run(self):
        ids, cache = self.start, None
        for _ in range(self.more):
            out = self.model(ids, past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, out.logits[:, -1] / 0.8
            values, indices = torch.topk(logits, self.top_k)
            ids = indices.gather(1, torch.multinomial(F.softmax(values, -1), 1))
        ids.item()
        return self.more


class Clock(transformers.StoppingCriteria):
    """Records when each token arrives, and never stops the generation."""

    def __init__(self):
        self.times = []

    def __call__(self, ids, scores, **_):
        self.times.append(time.perf_counter())
        return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)


class Rows:
    """Decodes several prompts at once, greedily. First tokens are not counted, because they come with reading the prompts."""

    def __init__(self, device, precision, rows, prompt, tokens, weights, vocabSize, gguf=None, **sizes):
        assert weights == "f32", weights
        self.model = Decoding(device, precision, vocabSize=vocabSize, **sizes).model
        ids = [[(31 * row + i) % vocabSize for i in range(prompt)] for row in range(rows)]
        self.prompts, self.tokens = torch.tensor(ids, device=device), tokens

    @torch.no_grad()
    def rate(self, seconds):
        passed = count = 0
        while True:
            clock, mask = Clock(), torch.ones_like(self.prompts)
            ways = dict(do_sample=False, max_new_tokens=self.tokens, pad_token_id=0)
            self.model.generate(self.prompts, attention_mask=mask, stopping_criteria=[clock], **ways)
            passed += clock.times[-1] - clock.times[0]
            count += len(self.prompts) * (self.tokens - 1)
            if passed >= seconds:
                return count / passed


KINDS = {"generate": Generate, "loop": Loop, "rows": Rows}
