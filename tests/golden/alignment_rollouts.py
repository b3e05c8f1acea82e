"""Cases of GRPO, RLOO and PPO, with the results of alignment.py. alignment_cases.py describes the layout."""

import numpy as np
import torch

import alignment as my
from alignment_modules import ADAM, END, LONGEST, all_of, apart, f32, mask_of, moved, rollouts, side_by_side, spread
from alignment_modules import stream, texts, trained

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
    yield "grpo, scaled by the batch, two rewards", rows, {
        "lossType": "grpo", "scaleRewards": "batch", "rewardWeights": [0.75, -0.5],
    }, all_of(rows)  # fmt: skip
    yield "bnpo, two micro-batches", rows, {"lossType": "bnpo"}, halves
    yield "dapo, two micro-batches, not scaled", rows, {"scaleRewards": "none"}, halves
    yield "dr_grpo, clipped further above, a cap", rows, {
        "lossType": "dr_grpo", "epsilonHigh": 0.28, "delta": 1.4, "scaleRewards": "none",
    }, all_of(rows)  # fmt: skip
    yield "a penalty, corrected", rows, {"beta": 0.3}, all_of(rows)
    yield "a penalty, not corrected", rows, {"beta": 0.3, "biasCorrection": False, "lossType": "grpo"}, all_of(rows)
    yield "ratios of whole rows", rows, {
        "beta": 0.1, "importanceSamplingLevel": "sequence", "lossType": "grpo", "epsilon": 0.1,
    }, all_of(rows)  # fmt: skip
    yield "rows that were cut off are masked", rows, {"maskTruncatedCompletions": True, "lossType": "grpo"}, all_of(rows)
    yield "two passes of two updates", rows, {"first": True, "beta": 0.1, "temperature": 0.9, **ADAM}, twice


def rloo_cases(prompt=None):
    random = stream("rloo", "rows", str(prompt))
    rows = rollouts(random, 4, 2, prompt)
    base = {"numGenerations": 2, "maxCompletionLength": LONGEST, "temperature": 1.0, "beta": 0.05, "epsilon": 0.2,
            "normalizeAdvantages": False, "rewardWeights": [1.0]}  # fmt: skip
    four = {**base, "numGenerations": 4}
    yield "the first pass", rows, {**base, "first": True, "temperature": 0.7}, all_of(rows)
    yield "groups of four, two rewards, clipped further above", rollouts(random, 2, 4, prompt), {
        **four, "epsilonHigh": 0.3, "rewardWeights": [0.75, -0.5],
    }, all_of(rows)  # fmt: skip
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
    yield "k3, rewards whitened, no end punished", rows, {
        "klEstimator": "k3", "klCoef": 0.2, "whitenRewards": True, "missingEosPenalty": 1.0,
    }, all_of(rows)  # fmt: skip
    yield "the same behind the end, discounted", rows, {
        "klEstimator": "k3", "whitenRewards": True, "missingEosPenalty": 1.0, "scoreAt": "behind", "gamma": 0.9,
    }, all_of(rows)  # fmt: skip
    yield "advantages as they are", rows, {"whitenAdvantages": False, "cliprange": 0.1, "cliprangeValue": 0.05}, all_of(rows)
    yield "a mix of pre-training", rows, {"ptx": ptx, "ptxCoef": 2.0}, all_of(rows)
    yield "two passes of two minibatches, a head", rows, {"first": True, **ADAM, "learningRate": 3e-4}, four
    yield "two passes of two minibatches, a model", rows, {
        "first": True, "scoreAt": "behind", "value": "model", **ADAM, "learningRate": 3e-4, "gradClip": 0,
    }, four  # fmt: skip


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
