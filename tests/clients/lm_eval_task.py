"""lm-evaluation-harness's local-completions with the server: log-probabilities of continuations, as its tasks request them.

Usage: lm_eval_task.py URL COMPLETION_MODEL CHAT_MODEL

Sends prompts as token ids with echo, max_tokens 1 and logprobs 1, and compares what it reads with /v1/score.
"""
import json
import sys
import urllib.request

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

url, model, _ = sys.argv[1:4]


class Completions(LocalCompletionsAPI):
    """Uses the characters' ids, because its own tokenizers come from the hub."""

    def tok_encode(self, string, **_):
        return [ord(c) - 32 for c in string]

    def decode_batch(self, tokens):
        return ["".join(chr(id + 32) for id in ids) for ids in tokens]

    @property
    def eot_token_id(self):
        return 0

    prefix_token_id = eot_token_id


lm = Completions(model=model, base_url=f"{url}/completions", tokenizer_backend=None, max_length=64, batch_size=2)
lm.tokenizer = lm  # is read, but not called
asked = [("the cat", " sat"), ("the cat", " xyz"), ("a", "b")]
instances = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(asked)]
found = lm.loglikelihood(instances, disable_tqdm=True)
for (prompt, continuation), (logprob, greedy) in zip(asked, found):
    body = json.dumps({"model": model, "prompt": prompt, "continuations": [continuation]}).encode()
    request = urllib.request.Request(f"{url}/score", body, {"content-type": "application/json"})
    [score] = json.load(urllib.request.urlopen(request))["data"]
    assert abs(score["logprob"] - logprob) < 1e-4 and score["is_greedy"] == greedy, (score, logprob, greedy)
print("checks passed")
