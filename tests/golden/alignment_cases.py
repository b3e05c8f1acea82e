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

import hashlib

import numpy as np
import torch

import alignment as my
from fixture import Fixture
from pytorch_gpt import GPT, GPTConfig

CONFIG = GPTConfig(block_size=12, vocab_size=12, n_layer=2, n_head=2, n_embd=8)
END, PAD, LONGEST = 10, 11, 6  # the last id is padding's alone, which TRL needs
ADAM = {"learningRate": 5e-4, "weightDecay": 0.1, "betas": [0.9, 0.99], "gradClip": 0.5}
SHARED = ("v_head.summary.weight", "v_head.summary.bias")


def stream(*names):
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(" ".join(names).encode()).digest(), "big")))


def f32(values):
    return torch.from_numpy(np.asarray(values, np.float32)).double()


def drawn(random, shape, scale, centre=0.0):
    return f32(centre + scale * random.standard_normal(shape))


def moved(random, shape):
    """Log-ratios on both sides of all clips of the cases, none of them close to one."""
    away = np.resize([-0.5, -0.3, -0.15, -0.05, 0.05, 0.14, 0.22, 0.29, 0.4], shape)
    return torch.from_numpy(random.permuted(away) + random.uniform(-0.005, 0.005, shape))


class Modules:
    """The models of a file in f64 (or another dtype): w, r and v are GPTs, heads are linear layers."""

    def __init__(self, method):
        random = stream(method, "weights")
        self.w, self.r, self.v = (GPT(CONFIG).double() for _ in range(3))
        for model in (self.w, self.v):
            for name, parameter in model.named_parameters():
                centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
                parameter.data = drawn(random, parameter.shape, 0.25, centre)
        for mine, other in zip(self.r.parameters(), self.w.parameters()):
            mine.data = f32(other.data + 0.05 * random.standard_normal(other.shape))
        self.h, self.s = torch.nn.Linear(CONFIG.n_embd, 1, bias=method == "ppo"), torch.nn.Linear(CONFIG.n_embd, 1, bias=False)
        for parameter in [*self.h.parameters(), *self.s.parameters()]:
            parameter.data = drawn(random, parameter.shape, 0.4)
        names = dict(zip(("weight", "bias"), SHARED)) if method == "ppo" else {"weight": "score.weight"}
        self.names = {"h": names, "s": {"weight": "score.weight"}}
        self.start = {letter: {n: p.data.clone() for n, p in self.module(letter).named_parameters()} for letter in "wrvhs"}

    def module(self, letter):
        return getattr(self, letter)

    def named(self, letters):
        """MODULE.NAME and the parameter, of all trained modules."""
        for letter in letters:
            for name, parameter in self.module(letter).named_parameters():
                yield f"{letter}.{self.names.get(letter, {}).get(name, name)}", parameter

    def restart(self, dtype=torch.float64):
        for letter, values in self.start.items():
            for name, parameter in self.module(letter).to(dtype).named_parameters():
                parameter.data, parameter.grad = values[name].to(dtype).clone(), None
        return self


def apart(values, *bends):
    """Nothing is close to where the loss bends: in f32 it could be on the other side."""
    for bend in bends:
        assert (values.detach() - bend).abs().min() > 1e-3, (values, bend)


def trained(modules, letters, case, loss_of):
    """Goes through a case's updates. loss_of(micro-batch, parts) gives a loss, already divided, and metrics."""
    named, results, losses, norms = dict(modules.named(letters)), {}, [], []
    if rate := case.get("learningRate"):
        groups = [(True, case["weightDecay"]), (False, 0.0)]
        groups = [{"params": [p for p in named.values() if (p.dim() >= 2) == wide], "weight_decay": decay} for wide, decay in groups]
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=case["betas"])
    for update in case["updates"]:
        total = 0.0
        for rows in update:
            loss, metrics = loss_of(rows, len(update))
            loss.backward()
            total += loss.item()
            if not losses and len(update) == 1:
                case["metrics"] = list(metrics)
                results["m"] = torch.stack([value.detach().double() for value in metrics.values()])
        if not losses and not rate:
            results.update({f"g.{name}": p.grad.clone() for name, p in named.items() if p.grad is not None})
        losses.append(total if abs(total) > 1e-15 else 0.0)  # advantages add up to 0, but for roundings
        if rate:
            limit = case["gradClip"] or torch.inf
            norms.append(torch.nn.utils.clip_grad_norm_(named.values(), limit).item())
            optimizer.step()
            optimizer.zero_grad()
    results["losses"] = torch.tensor(losses, dtype=torch.float64)
    if rate:
        results["norms"] = torch.tensor(norms, dtype=torch.float64)
        results.update({f"p.{name}": p.data.clone() for name, p in named.items()})
    return results


def side_by_side(values, mask):
    return values[mask]


def spread(flat, mask):
    """The reverse: (rows, n) with 0 where the mask has nothing."""
    out = torch.zeros(mask.shape, dtype=flat.dtype)
    out[mask] = flat
    return out


def mask_of(rows, length=LONGEST):
    return torch.arange(length) < torch.tensor([[len(row["ids"]) - row["from"]] for row in rows])


def texts(random, count):
    return random.integers(0, END, count).tolist()


def rollouts(random, groups, size, prompt=None, lengths=None):
    """Rows of several completions of a prompt each. Some end early, some with the last token there is room for, some not at all."""
    rows = []
    for group in range(groups):
        asked = texts(random, prompt or random.integers(1, 6))
        for i in range(size):
            length = (lengths or [3, 6, 1, 6, 4, 2, 5, 6])[(group * size + i) % 8]
            ended = length < LONGEST or (group * size + i) % 4 == 1
            said = texts(random, length - ended) + [END] * ended
            rows.append({"ids": asked + said, "from": len(asked), "ended": ended, "group": group})
    return rows


def all_of(rows):
    return [[list(range(len(rows)))]]


# Reward models


def reward_cases(prompt=None):
    random = stream("reward", "rows", str(prompt))
    pair = lambda: {"chosen": texts(random, random.integers(1, 11)) + [END], "rejected": texts(random, random.integers(1, 11)) + [END]}
    pairs = lambda count, margin=False: [
        {**pair(), **({"margin": float(np.float32(random.random()))} if margin else {})} for _ in range(count)
    ]
    plain, margins, more = pairs(4), pairs(4, True), pairs(16, True)
    ranked = [{"ranked": [texts(random, random.integers(1, 11)) + [END] for _ in range(k)]} for k in (4, 2, 5)]
    yield "pairs", plain, {}, all_of(plain)
    yield "margins", margins, {}, all_of(margins)
    yield "centred", plain, {"centerRewardsCoefficient": 0.01}, all_of(plain)
    yield "rankings of 4, 2 and 5", ranked, {"centerRewardsCoefficient": 0.01}, all_of(ranked)
    updates = [[[4 * i, 4 * i + 1], [4 * i + 2, 4 * i + 3]] for i in range(4)]
    yield "four updates, of two micro-batches", more, {"centerRewardsCoefficient": 0.05, **ADAM}, updates


def reward(modules, case, given):
    center, scores = case.get("centerRewardsCoefficient"), []

    def loss_of(numbers, count):
        rows = [case["rows"][i] for i in numbers]
        if "ranked" in rows[0]:
            of = [my.pooled(modules.w, modules.h, row["ranked"]) for row in rows]
            scores.append(torch.cat(of))
            losses = [my.listwise(one, center) for one in of]
            gaps = [(one[:, None] - one)[tuple(torch.triu_indices(len(one), len(one), 1))] for one in of]
            right, margin = (torch.stack(column).mean() for column in zip(*[((g > 0).to(g.dtype).mean(), g.mean()) for g in gaps]))
            loss = torch.stack(losses).mean()
        else:
            chosen, rejected = my.pooled(modules.w, modules.h, [r["chosen"] for r in rows] + [r["rejected"] for r in rows]).chunk(2)
            margin = torch.tensor([r["margin"] for r in rows], dtype=chosen.dtype) if "margin" in rows[0] else None
            scores.append(torch.cat([chosen, rejected]))
            loss = my.pairwise(chosen, rejected, margin, center).mean()
            right, margin = (chosen > rejected).to(chosen.dtype).mean(), (chosen - rejected).mean()
        every = scores[-1]
        metrics = {"accuracy": right, "margin": margin, "min_reward": every.min(), "mean_reward": every.mean(), "max_reward": every.max()}
        return loss / count, metrics

    results = trained(modules, "wh", case, loss_of)
    return {**results, **({"scores": scores[0]} if "learningRate" not in case else {})}


# DPO


def dpo_cases(prompt=None):
    random = stream("dpo", "rows", str(prompt))

    def pair():
        said = lambda: texts(random, random.integers(1, 6)) + [END]
        return {"prompt": texts(random, prompt or random.integers(1, 7)), "chosen": said(), "rejected": said()}

    pairs, more = [pair() for _ in range(4)], [pair() for _ in range(16)]
    yield "sigmoid", pairs, {"lossType": "sigmoid", "beta": 0.1}, all_of(pairs)
    yield "hinge", pairs, {"lossType": "hinge", "beta": 3.0}, all_of(pairs)
    yield "ipo", pairs, {"lossType": "ipo", "beta": 0.5}, all_of(pairs)
    yield "robust", pairs, {"lossType": "robust", "beta": 0.3, "labelSmoothing": 0.2}, all_of(pairs)
    yield "conservative", pairs, {"lossType": "sigmoid", "beta": 0.3, "labelSmoothing": 0.1}, all_of(pairs)
    yield "without a reference", pairs, {"lossType": "sigmoid", "beta": 0.1, "referenceFree": True}, all_of(pairs)
    updates = [[[4 * i, 4 * i + 1], [4 * i + 2, 4 * i + 3]] for i in range(4)]
    yield "four updates, of two micro-batches", more, {"lossType": "sigmoid", "beta": 0.5, **ADAM}, updates


def as_rows(pairs, which):
    return [{"ids": pair["prompt"] + pair[which], "from": len(pair["prompt"])} for pair in pairs]


def dpo_given(modules, case):
    with torch.no_grad():
        sums = {}
        for which in ("chosen", "rejected"):
            rows = as_rows(case["rows"], which)
            sums[f"ref.{which}"] = f32((my.Reading(modules.r, rows, LONGEST).logprobs * mask_of(rows)).sum(1))
    return {} if case.get("referenceFree") else sums


def dpo(modules, case, given):
    beta, first = case["beta"], {}

    def loss_of(numbers, count):
        pairs = [case["rows"][i] for i in numbers]
        rows = as_rows(pairs, "chosen") + as_rows(pairs, "rejected")
        reading = my.Reading(modules.w, rows, LONGEST)
        mask, dtype = reading.mask, reading.logprobs.dtype
        chosen, rejected = (reading.logprobs * mask).sum(1).chunk(2)
        first.setdefault("chosen", chosen.detach()), first.setdefault("rejected", rejected.detach())
        ratios = chosen, rejected
        if not case.get("referenceFree"):
            ratios = [sums - given[f"ref.{which}"][numbers].to(dtype) for sums, which in zip(ratios, ("chosen", "rejected"))]
        lengths = mask.sum(1).chunk(2)
        if case["lossType"] == "hinge":
            apart(beta * (ratios[0] - ratios[1]), 1)
        loss = my.preference(case["lossType"], *ratios, beta, case.get("labelSmoothing", 0.0), lengths).mean()
        good, bad = beta * ratios[0], beta * ratios[1]
        logits, best = reading.logits.mean(-1).chunk(2), reading.is_best.chunk(2)[0]
        masks = mask.chunk(2)
        metrics = {
            "rewards/chosen": good.mean(), "rewards/rejected": bad.mean(), "rewards/margins": (good - bad).mean(),
            "rewards/accuracies": (good > bad).to(dtype).mean(), "logps/chosen": chosen.mean(), "logps/rejected": rejected.mean(),
            "logits/chosen": my.mean(logits[0], masks[0]), "logits/rejected": my.mean(logits[1], masks[1]),
            "entropy": my.mean(reading.entropy, mask), "mean_token_accuracy": my.mean(best.to(dtype), masks[0]),
        }  # fmt: skip
        return loss / count, metrics

    results = trained(modules, "w", case, loss_of)
    return {**results, **(first if "learningRate" not in case else {})}


# GRPO and RLOO

GROUP = {
    "numGenerations": 4, "maxCompletionLength": LONGEST, "temperature": 1.0, "beta": 0.0, "epsilon": 0.2, "lossType": "dapo",
    "scaleRewards": "group", "importanceSamplingLevel": "token", "biasCorrection": True, "rewardWeights": [1.0],
}  # fmt: skip


def grpo_cases(prompt=None):
    random = stream("grpo", "rows", str(prompt))
    rows = rollouts(random, 2, 4, prompt)
    halves = [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    twice = [[[0, 1, 4, 5]], [[2, 3, 6, 7]]] * 2
    yield "dapo, the first pass, a group of equal rewards", rows, {"first": True, "temperature": 0.7, "tied": True}, all_of(rows)
    yield "grpo, scaled by the batch, two rewards", rows, {"lossType": "grpo", "scaleRewards": "batch", "rewardWeights": [0.75, -0.5]}, all_of(rows)
    yield "bnpo, two micro-batches", rows, {"lossType": "bnpo"}, halves
    yield "dapo, two micro-batches, not scaled", rows, {"scaleRewards": "none"}, halves
    yield "dr_grpo, clipped further above, a cap", rows, {"lossType": "dr_grpo", "epsilonHigh": 0.28, "delta": 1.4, "scaleRewards": "none"}, all_of(rows)
    yield "a penalty, corrected", rows, {"beta": 0.3}, all_of(rows)
    yield "a penalty, not corrected", rows, {"beta": 0.3, "biasCorrection": False, "lossType": "grpo"}, all_of(rows)
    yield "ratios of whole rows", rows, {"beta": 0.1, "importanceSamplingLevel": "sequence", "lossType": "grpo", "epsilon": 0.1}, all_of(rows)
    yield "rows that were cut off are masked", rows, {"maskTruncatedCompletions": True, "lossType": "grpo"}, all_of(rows)
    yield "two passes of two updates", rows, {"first": True, "beta": 0.1, "temperature": 0.9, **ADAM}, twice


def rloo_cases(prompt=None):
    random = stream("rloo", "rows", str(prompt))
    rows = rollouts(random, 4, 2, prompt)
    base = {"numGenerations": 2, "maxCompletionLength": LONGEST, "temperature": 1.0, "beta": 0.05, "epsilon": 0.2,
            "normalizeAdvantages": False, "rewardWeights": [1.0]}  # fmt: skip
    four = {**base, "numGenerations": 4}
    yield "the first pass", rows, {**base, "first": True, "temperature": 0.7}, all_of(rows)
    yield "groups of four, two rewards, clipped further above", rollouts(random, 2, 4, prompt), {**four, "epsilonHigh": 0.3, "rewardWeights": [0.75, -0.5]}, all_of(rows)
    yield "without a penalty, normalized", rows, {**base, "beta": 0.0, "normalizeAdvantages": True}, all_of(rows)
    yield "two passes of two updates", rows, {**base, "first": True, "beta": 0.2, **ADAM}, [[[0, 1, 2, 3]], [[4, 5, 6, 7]]] * 2


def group_given(modules, case):
    random = stream(case["name"], str(len(case["rows"][0]["ids"])))
    rows, mask = case["rows"], mask_of(case["rows"])
    with torch.no_grad():
        own = my.Reading(modules.w, rows, LONGEST, case["temperature"]).logprobs
        ref = my.Reading(modules.r, rows, LONGEST, case["temperature"]).logprobs
    logs = moved(random, own.shape)
    if "lossType" not in case or case["importanceSamplingLevel"] == "sequence":  # these clip sums and means of rows
        lengths = mask.sum(1, keepdim=True)
        of_rows = moved(random, (len(rows), 1)) / (1 if "lossType" in case else lengths)
        logs = (logs - (logs * mask).sum(1, keepdim=True) / lengths + of_rows) * mask
    rewards = f32(np.round(random.standard_normal((len(rows), len(case["rewardWeights"]))), 3))
    if case.get("tied"):
        rewards[-case["numGenerations"] :] = 0.5
    given = {"rewards": rewards}
    given["old"] = side_by_side(f32(own if case.get("first") else own - logs), mask)
    if case["beta"]:
        given["ref"] = side_by_side(f32(ref), mask)
    return given


def grouped(modules, case, given):
    rows, dtype = case["rows"], next(modules.w.parameters()).dtype
    is_rloo, full = "lossType" not in case, mask_of(rows)
    with torch.no_grad():
        start = my.Reading(modules.w, rows, LONGEST, case["temperature"])
    old = spread(given["old"].to(dtype), full)
    ref = spread(given["ref"].to(dtype), full) if "ref" in given else torch.zeros_like(old)
    functions, weights = given["rewards"].to(dtype), torch.tensor(case["rewardWeights"], dtype=dtype)
    total, size = (functions * weights).sum(1), case["numGenerations"]
    lengths = full.sum(1).to(dtype)
    ended = torch.tensor([row["ended"] for row in rows])
    kept = full & (ended[:, None] if case.get("maskTruncatedCompletions") else True)
    whole = {"reward": total.mean(), "reward_std": total.std()}
    for i, name in enumerate(["first", "second"][: len(weights)]):
        whole |= {f"rewards/{name}/mean": functions[:, i].mean(), f"rewards/{name}/std": functions[:, i].std()}
    for kind, of in [("", lengths), ("terminated_", lengths[ended])]:
        whole |= {f"completions/{what}_{kind}length": getattr(of, what)() for what in ("mean", "min", "max")}
    whole["completions/clipped_ratio"] = 1 - ended.to(dtype).mean()
    if is_rloo:
        judged = total - case["beta"] * ((old - ref) * full).sum(1) if case["beta"] else total
        advantages = my.leave_one_out(judged, size, case["normalizeAdvantages"])
        deviations = judged.view(-1, size).std(1)
        if case["beta"]:
            whole["kl"] = my.mean(old - ref, full)
    else:
        advantages = my.group_advantages(total, size, case["scaleRewards"])
        deviations = total.std()[None] if case["scaleRewards"] == "batch" else total.view(-1, size).std(1)
    whole["frac_reward_zero_std"] = (deviations.abs() <= 1e-8).to(dtype).mean()
    flat = [numbers for update in case["updates"] for numbers in update]
    parts_of_all = len(flat) // (sum(map(len, flat)) // len(rows))

    def loss_of(numbers, count):
        reading = my.Reading(modules.w, [rows[i] for i in numbers], LONGEST, case["temperature"])
        mask, then = kept[numbers], old[numbers]
        low, high = case["epsilon"], case.get("epsilonHigh") or case["epsilon"]
        if is_rloo:
            ratio = (((reading.logprobs - then) * mask).sum(1)).exp()
            each, below, above = my.clipped(ratio, advantages[numbers], low, high)
            metrics = {"entropy": my.mean(reading.entropy, mask)}
            for name, hit, edge in [("low", below, "min"), ("high", above, "max")]:
                hit = hit.to(dtype)
                metrics |= {f"clip_ratio/{name}_mean": hit.mean(), f"clip_ratio/{name}_{edge}": getattr(hit, edge)()}
            metrics["clip_ratio/region_mean"] = (below | above).to(dtype).mean()
            loss = each.mean() / count
        else:
            loss, metrics, ratio = my.group_policy(
                reading, then, ref[numbers], advantages[numbers], mask, case, kept.sum(), parts_of_all / count
            )
            loss = loss if case["lossType"] == "dapo" else loss / count
            ratio = ratio[mask] if ratio.shape[1] > 1 else ratio
        apart(ratio, 1 - low, 1 + high, case.get("delta") or 9)
        return loss, {**whole, **metrics}

    results = trained(modules, "w", case, loss_of)
    seen = {"logprobs": side_by_side(start.logprobs, full), "entropy": side_by_side(start.entropy, full)}
    return {**results, **seen, "advantages": advantages}


# PPO

PROXIMAL = {
    "maxCompletionLength": LONGEST, "temperature": 0.7, "klCoef": 0.05, "klEstimator": "k1", "gamma": 1.0, "lam": 0.95,
    "cliprange": 0.2, "cliprangeValue": 0.2, "vfCoef": 0.1, "whitenRewards": False, "whitenAdvantages": True, "scoreAt": "end",
    "value": "shared",
}  # fmt: skip


def ppo_cases(prompt=None):
    random = stream("ppo", "rows", str(prompt))
    rows = rollouts(random, 4, 2, prompt)
    ptx = [texts(random, count) for count in (9, 12, 4)]
    four = [[[0, 3, 5, 6]], [[1, 2, 4, 7]], [[7, 1, 0, 5]], [[6, 4, 3, 2]]]
    yield "score at the end, a head on the policy", rows, {}, all_of(rows)
    yield "score behind the end, a model beside", rows, {"scoreAt": "behind", "value": "model"}, all_of(rows)
    yield "k3, rewards whitened, no end punished", rows, {"klEstimator": "k3", "klCoef": 0.2, "whitenRewards": True, "missingEosPenalty": 1.0}, all_of(rows)
    yield "the same behind the end, discounted", rows, {
        "klEstimator": "k3", "whitenRewards": True, "missingEosPenalty": 1.0, "scoreAt": "behind", "gamma": 0.9,
    }, all_of(rows)  # fmt: skip
    yield "advantages as they are", rows, {"whitenAdvantages": False, "cliprange": 0.1, "cliprangeValue": 0.05}, all_of(rows)
    yield "a mix of pre-training", rows, {"ptx": ptx, "ptxCoef": 2.0}, all_of(rows)
    yield "two passes of two minibatches, a head", rows, {"first": True, **ADAM, "learningRate": 3e-4}, four
    yield "two passes of two minibatches, a model", rows, {"first": True, "scoreAt": "behind", "value": "model", **ADAM, "learningRate": 3e-4, "gradClip": 0}, four


def predicted(modules, case, rows, reading):
    if case["value"] == "shared":
        return modules.h(reading.before(LONGEST)).squeeze(-1)
    return modules.s(my.Reading(modules.v, rows, LONGEST).before(LONGEST)).squeeze(-1)


def valued_of(rows, case):
    counts = mask_of(rows).sum(1)
    return torch.arange(LONGEST) < (counts + (case["scoreAt"] == "behind"))[:, None]


def ppo_given(modules, case):
    random = stream(case["name"], str(len(case["rows"][0]["ids"])))
    rows, mask = case["rows"], mask_of(case["rows"])
    with torch.no_grad():
        reading = my.Reading(modules.w, rows, LONGEST, case["temperature"])
        ref = my.Reading(modules.r, rows, LONGEST, case["temperature"]).logprobs
        values = predicted(modules, case, rows, reading)
    away = random.choice([-0.4, -0.12, -0.02, 0.03, 0.1, 0.3], values.shape) if not case.get("first") else 0
    given = {"scores": f32(np.round(random.standard_normal(len(rows)) * 2, 3)), "ref": side_by_side(f32(ref), mask)}
    given["values"] = side_by_side(f32(values + away), valued_of(rows, case))
    logs = 0 if case.get("first") else moved(random, mask.shape)
    given["old"] = side_by_side(f32(reading.logprobs - logs), mask)
    return given


def ppo(modules, case, given):
    rows, dtype = case["rows"], next(modules.w.parameters()).dtype
    full, valued = mask_of(rows), valued_of(rows, case)
    with torch.no_grad():
        start = my.Reading(modules.w, rows, LONGEST, case["temperature"])
    old, values = spread(given["old"].to(dtype), full), spread(given["values"].to(dtype), valued)
    made = my.prepared(rows, given["scores"].to(dtype), old, spread(given["ref"].to(dtype), full), values, case)
    made["gae"] = made["returns"] - values
    assert torch.equal(made["valued"], valued)
    ends = torch.tensor(sum(END in row["ids"][row["from"] :] for row in rows))

    def loss_of(numbers, count):
        assert count == 1, "means over tokens of one minibatch"
        few = [rows[i] for i in numbers]
        reading = my.Reading(modules.w, few, LONGEST, case["temperature"])
        guess = predicted(modules, case, few, reading)
        part = {name: made[name][numbers] for name in ("advantages", "returns", "mask", "valued")}
        loss, metrics, ratio = my.proximal(reading, guess, old[numbers], values[numbers], part, case)
        shift = (guess - values[numbers])[part["valued"]]
        apart(ratio[part["mask"]], 1 - case["cliprange"], 1 + case["cliprange"])
        apart(shift.abs(), case["cliprangeValue"])
        if "ptx" in case:
            mixed = my.language_model(modules.w, case["ptx"])
            loss, metrics = loss + case["ptxCoef"] * mixed, {**metrics, "loss/ptx_avg": mixed}
        return loss, {**made["metrics"], **metrics, "val/num_eos_tokens": ends}

    results = trained(modules, "wh" if case["value"] == "shared" else "wvs", case, loss_of)
    flat = {name: side_by_side(made[name], valued) for name in ("rewards", "gae", "returns")}
    seen = {"logprobs": side_by_side(start.logprobs, full), "entropy": side_by_side(start.entropy, full)}
    return {**results, **flat, **seen, "advantages": side_by_side(made["advantages"], full)}


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
