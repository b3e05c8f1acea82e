"""Cases of reward models and DPO, with the results of alignment.py. alignment_cases.py describes the layout."""

import numpy as np
import torch

import alignment as my
from alignment_modules import ADAM, END, LONGEST, all_of, apart, f32, mask_of, stream, texts, trained

# Reward models


def reward_cases(prompt=None):
    random = stream("reward", "rows", str(prompt))
    text = lambda: texts(random, random.integers(1, 11)) + [END]
    pair = lambda: {"chosen": text(), "rejected": text()}
    pairs = lambda count, margin=False: [
        {**pair(), **({"margin": float(np.float32(random.random()))} if margin else {})} for _ in range(count)
    ]
    plain, margins, more = pairs(4), pairs(4, True), pairs(16, True)
    ranked = [{"ranked": [text() for _ in range(k)]} for k in (4, 2, 5)]
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
            right = torch.stack([(gap > 0).to(gap.dtype).mean() for gap in gaps]).mean()
            margin = torch.stack([gap.mean() for gap in gaps]).mean()
            loss = torch.stack(losses).mean()
        else:
            every = [row["chosen"] for row in rows] + [row["rejected"] for row in rows]
            chosen, rejected = my.pooled(modules.w, modules.h, every).chunk(2)
            margin = torch.tensor([r["margin"] for r in rows], dtype=chosen.dtype) if "margin" in rows[0] else None
            scores.append(torch.cat([chosen, rejected]))
            loss = my.pairwise(chosen, rejected, margin, center).mean()
            right, margin = (chosen > rejected).to(chosen.dtype).mean(), (chosen - rejected).mean()
        every, all_texts = scores[-1], [text for row in rows for text in row.get("ranked") or (row["chosen"], row["rejected"])]
        metrics = {"accuracy": right, "margin": margin, "num_tokens": torch.tensor(sum(map(len, all_texts)))}
        metrics |= {"min_reward": every.min(), "mean_reward": every.mean(), "max_reward": every.max()}
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
            "num_tokens": torch.tensor(sum(len(row["ids"]) for row in rows)),
        }  # fmt: skip
        return loss / count, metrics

    results = trained(modules, "w", case, loss_of)
    return {**results, **(first if "learningRate" not in case else {})}
