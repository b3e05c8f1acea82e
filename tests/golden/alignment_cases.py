"""Makes fixtures/{reward,dpo,grpo,rloo,ppo}.safetensors: recorded iterations of each method, and what alignment.py says of them.

Called by generate.py. Inputs are what f32 represents, results are f64. Weights of the modules, as nanoGPT has them, are common
to a file: w.NAME the model that is trained, r.NAME the reference, h.NAME the head on the trained model's body (score.weight
of a reward model; v_head.summary.weight and .bias), v.NAME a value model's body and s.score.weight its head. Case N has

- in the metadata its options, under TRL's names in camel case, and its rows. A row is {ids, from, ended, group}: ids of prompt
  and completion, where the completion begins, whether it ends with the end token (10), the number of its prompt. Rows of DPO
  are {prompt, chosen, rejected}, of the reward model {chosen, rejected, margin?}, or {ranked}: whole texts, best first.
- updates: [[rows of a micro-batch, …] of an update, …], and N.losses of each. N.m, where the first update is one micro-batch, are
  numbers that `metrics` names, before it moves anything; PPO's that end in _avg too. In cases without learningRate there is
  one update, and N.g.MODULE.NAME its gradients. In those with one AdamW makes the updates: N.norms of the gradients before
  clipping (gradClip 0: none), N.p.MODULE.NAME parameters after the last.
- arrays of rows, each as long as its completion, side by side: N.old log-probabilities of the policy that wrote them (where
  `first` says so the trained model's own, rounded to f32, as are N.values), N.ref of the reference, N.logprobs and N.entropy
  of the trained model before the first update, all at the case's temperature.
- reward model: N.scores of the rows' texts, chosen and then rejected, or best first, row after row.
- DPO: N.ref.chosen and N.ref.rejected, sums over completions, and N.chosen, N.rejected of the trained model.
- GRPO, RLOO: N.rewards (rows, functions), N.advantages (rows). RLOO's rewards have the penalty −β Σ(old − ref) taken inside.
- PPO: N.scores of rows, before missingEosPenalty. N.values (given), N.rewards, N.gae, N.returns: side by side, a number for each
  token of a completion, and with scoreAt "behind" one more of rows that ended before maxCompletionLength: the place behind the end
  token, which has a value and gets the score. N.advantages, whitened where it says so, of tokens alone. The mix of
  pre-training has rows of ids in `ptx` and its factor in ptxCoef.

The gradient of keys' biases is 0 and Adam scales its roundings, so N.p.….c_attn.bias means nothing in its middle third. No ratio,
value or margin lies within 1e-3 of where a clip or a hinge bends, in any update.
"""

import torch

from alignment_modules import CONFIG, Modules
from alignment_pairs import dpo, dpo_cases, dpo_given, reward, reward_cases
from alignment_rollouts import GROUP, PROXIMAL, group_given, grouped, grpo_cases, ppo, ppo_cases, ppo_given, rloo_cases
from fixture import Fixture

METHODS = {  # cases, what they are given, results, common options, modules that the file has
    "reward": (reward_cases, lambda modules, case: {}, reward, {}, "wh"),
    "dpo": (dpo_cases, dpo_given, dpo, {}, "wr"),
    "grpo": (grpo_cases, group_given, grouped, GROUP, "wr"),
    "rloo": (rloo_cases, group_given, grouped, {}, "wr"),
    "ppo": (ppo_cases, ppo_given, ppo, PROXIMAL, "wrhvs"),
}


def cases(method, modules, prompt=None):
    """Each case with what it is given; prompts of one length where a length is said."""
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
