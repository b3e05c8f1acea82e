"""Makes fixtures/{reward,dpo,grpo,rloo,ppo}.safetensors: recorded iterations of each method, and the results of
alignment.py.

Called by generate.py. Inputs are numbers that f32 represents, results are f64. All cases of a file share the weights,
under nanoGPT's names: w.NAME of the trained model, r.NAME of the reference, h.NAME of the head on the trained model's
body (score.weight of a reward model; v_head.summary.weight and .bias for PPO), v.NAME of a value model's body and
s.score.weight of its head. For case number N a file has:

- in the metadata the case's options, under TRL's names in camel case, and its rows. A row is {ids, from, ended, group}:
  the ids of prompt and completion, the index at which the completion begins, whether it ends with the end token (10),
  and the number of its prompt. Rows of DPO are {prompt, chosen, rejected}; of the reward model {chosen, rejected,
  margin?} or {ranked}: texts, best first.
- updates: [[rows of a micro-batch, …] of an update, …], and N.losses, one for each update. If the first update is a
  single micro-batch, N.m has the numbers that `metrics` names, before the update, including PPO's means (_avg). A case
  without learningRate has one update, with its gradients in N.g.MODULE.NAME. In a case with learningRate, AdamW makes
  the updates: N.norms are the gradients' norms before clipping (gradClip 0: no clipping), N.p.MODULE.NAME the
  parameters after the last update.
- numbers for each token of the completions, row after row: N.old, log-probabilities under the policy that wrote them
  (if `first` is set, the trained model's own, rounded to f32, as are N.values), N.ref under the reference, and
  N.logprobs and N.entropy of the trained model before the first update, all at the case's temperature.
- reward model: N.scores of all texts, row after row: chosen then rejected, or best first.
- DPO: N.ref.chosen and N.ref.rejected, sums over completions, and N.chosen and N.rejected of the trained model.
- GRPO, RLOO: N.rewards (rows, functions) and N.advantages (rows). RLOO's rewards include the penalty −β Σ(old − ref).
- PPO: N.scores, one for each row, before missingEosPenalty. N.values (an input), N.rewards, N.gae and N.returns, row
  after row: a number for each token of a completion, and with scoreAt `behind` one more for rows that ended before
  maxCompletionLength: the position after the end token has a value and receives the score. N.advantages has tokens
  only; they are whitened if the case says so. Cases with pre-training have rows of ids in `ptx` and the loss's factor
  in ptxCoef.

The gradient of the keys' biases is 0 and Adam scales its rounding errors, so the middle third of N.p.….c_attn.bias has
no meaning. In every update, all ratios, values and margins are at least 1e-3 away from the kinks of clips and hinges.
"""

import torch

from alignment_modules import CONFIG, Modules
from alignment_pairs import dpo, dpo_cases, dpo_given, reward, reward_cases
from alignment_rollouts import GROUP, PROXIMAL, group_given, grouped, grpo_cases, ppo, ppo_cases, ppo_given, rloo_cases
from fixture import Fixture

METHODS = {  # functions that make cases, inputs and results; common options; letters of the file's modules
    "reward": (reward_cases, lambda modules, case: {}, reward, {}, "wh"),
    "dpo": (dpo_cases, dpo_given, dpo, {}, "wr"),
    "grpo": (grpo_cases, group_given, grouped, GROUP, "wr"),
    "rloo": (rloo_cases, group_given, grouped, {}, "wr"),
    "ppo": (ppo_cases, ppo_given, ppo, PROXIMAL, "wrhvs"),
}


def cases(method, modules, prompt=None):
    """Each case with its inputs. If `prompt` is set, all prompts have this length."""
    makes, give, _, common, _ = METHODS[method]
    for name, rows, options, updates in makes(prompt):
        case = {"name": name, **common, **options, "rows": rows, "updates": updates}
        yield case, give(modules.restart(), case)


def fixture_of(method):
    fixture, modules = Fixture(), Modules(method)
    for name, parameter in modules.named(METHODS[method][-1]):
        fixture.put(name, parameter.float())
    for number, (case, given) in enumerate(cases(method, modules)):
        results = METHODS[method][2](modules.restart(), case, given)
        for name, values in given.items():
            fixture.put(f"{number}.{name}", values.float())
        for name, values in results.items():
            fixture.put(f"{number}.{name}", torch.as_tensor(values).double())
        fixture.cases.append({**case, "config": CONFIG.camel()})
    return fixture


def fixtures():
    return {method: fixture_of(method) for method in METHODS}
