"""Reference implementations of reward models, DPO, GRPO, RLOO and PPO in plain PyTorch, written from the papers.

Each function takes the recorded data of an iteration (rows, rewards, log-probabilities under the policy that wrote the
rows and under the reference) and returns numbers, or a loss with a gradient. The dtype is the model's: f64 for the
fixtures (alignment_cases.py), f32 for the comparison with TRL (check_trl.py). A row is {"ids", "from"}: the ids of
prompt and completion, and the index at which the completion begins. Rows are padded on the right and positions count
from 0, so no attention mask is needed. Metrics have TRL's names. Unlike TRL's, the means of PPO's approxkl, entropy and
ratio do not include padding.
"""

import torch
import torch.nn.functional as F


def padded(rows, value=0):
    length = max(len(row) for row in rows)
    return torch.tensor([list(row) + [value] * (length - len(row)) for row in rows])


def states(model, tokens):
    """Final hidden states (B, T, C), after the last layer norm."""
    body = model.transformer
    x = body.wte(tokens) + body.wpe.weight[: tokens.shape[1]]
    for block in body.h:
        x = block(x)
    return body.ln_f(x)


def pooled(model, score, texts):
    """A score for each text, from the hidden state of its last token: (B,)."""
    hidden = states(model, padded(texts))
    last = torch.tensor([len(text) - 1 for text in texts])
    return score(hidden[torch.arange(len(texts)), last]).squeeze(-1)


class Reading:
    """Completions under a policy: mask, log-probabilities and entropies (B, n), with logits divided by a temperature."""

    def __init__(self, model, rows, length, temperature=1.0):
        tokens = padded([row["ids"] for row in rows])
        begin, end = (torch.tensor(column)[:, None] for column in zip(*[(row["from"], len(row["ids"])) for row in rows]))
        self.hidden, self.each = states(model, tokens), torch.arange(len(rows))[:, None]
        self.begin, places = begin, begin + torch.arange(length)  # (B, n)
        self.mask = places < end
        places = places.clamp(max=tokens.shape[1] - 1)
        self.logits = model.lm_head(self.hidden)[self.each, places - 1]  # (B, n, V)
        every = F.log_softmax(self.logits / temperature, -1)
        targets = tokens.gather(1, places)
        self.logprobs = every.gather(2, targets[..., None]).squeeze(-1)
        self.entropy = -(every.exp() * every).sum(-1)
        self.is_best = self.logits.argmax(-1) == targets

    def before(self, count):
        """Hidden states from which each of the first `count` positions is predicted, from the completion's first: (B, count, C)."""
        places = self.begin + torch.arange(count) - 1
        return self.hidden[self.each, places.clamp(max=self.hidden.shape[1] - 1)]


def mean(values, mask):
    return (values * mask).sum() / mask.sum().clamp(min=1)


def pairwise(chosen, rejected, margin=None, center=None):
    """Bradley and Terry: −log σ(chosen − rejected − margin), and center · (chosen + rejected)², for each pair."""
    loss = -F.logsigmoid(chosen - rejected - (0 if margin is None else margin))
    return loss if center is None else loss + center * (chosen + rejected) ** 2


def listwise(ranked, center=None):
    """InstructGPT's loss: the mean over all pairs of a prompt's completions. `ranked` (K,) has their scores, best first."""
    first, second = torch.triu_indices(len(ranked), len(ranked), 1)
    return pairwise(ranked[first], ranked[second], center=center).mean()


def preference(kind, chosen, rejected, beta, smoothing=0.0, lengths=None):
    """The loss of DPO or one of its variants for each pair, from the log-ratios log π − log π_ref of whole completions.

    sigmoid: Rafailov et al. 2023; hinge: SLiC; ipo: Azar et al. 2023, with means over tokens, for which `lengths`
    (tokens) are needed; conservative DPO: the note by Mitchell 2023; robust: Chowdhury et al. 2024.
    """
    if kind == "ipo":
        return (chosen / lengths[0] - rejected / lengths[1] - 1 / (2 * beta)) ** 2
    margin = beta * (chosen - rejected)
    if kind == "hinge":
        return torch.relu(1 - margin)
    kept, flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    if kind == "robust":
        return ((1 - smoothing) * kept - smoothing * flipped) / (1 - 2 * smoothing)
    assert kind == "sigmoid", kind
    return (1 - smoothing) * kept + smoothing * flipped


def group_advantages(rewards, size, scale):
    """GRPO: (reward − mean of its group) / standard deviation of the group or of all rows ("none": not divided)."""
    groups = rewards.view(-1, size)
    centred = groups - groups.mean(1, keepdim=True)
    deviation = {"group": lambda: groups.std(1, keepdim=True), "batch": rewards.std, "none": lambda: None}[scale]()
    return (centred if deviation is None else centred / (deviation + 1e-4)).flatten()


def leave_one_out(rewards, size, normalize=False):
    """RLOO: reward − mean of the other rewards of its group."""
    groups = rewards.view(-1, size)
    advantages = (groups - (groups.sum(1, keepdim=True) - groups) / (size - 1)).flatten()
    return (advantages - advantages.mean()) / (advantages.std() + 1e-4) if normalize else advantages


def clipped(ratio, advantages, low, high, cap=None):
    """−min(min(ratio, cap) · A, clip(ratio) · A), and masks of the ratios that are clipped below and above."""
    bounded = ratio.clamp(1 - low, 1 + high)
    ratio = ratio if cap is None else ratio.clamp(max=cap)
    loss = -torch.min(ratio * advantages, bounded * advantages)
    return loss, (ratio < 1 - low) & (advantages < 0), (ratio > 1 + high) & (advantages > 0)


def third_estimate(logprobs, reference):
    """Schulman's k3 of KL(π‖π_ref): e^d − 1 − d with d = log π_ref − log π."""
    return (reference - logprobs).exp() - 1 - (reference - logprobs)


def group_policy(reading, old, reference, advantages, mask, options, tokens, parts):
    """GRPO's loss of a micro-batch, and its metrics.

    tokens: the number of completion tokens in all rows that were written together. parts: the number of micro-batches
    that these rows are split into, divided by the number of micro-batches in an update. `mask` (B, n) excludes
    truncated rows if the case masks them.
    """
    logs = reading.logprobs - old
    low, high = options["epsilon"], options.get("epsilonHigh") or options["epsilon"]
    if options["importanceSamplingLevel"] == "sequence":
        logs = ((logs * mask).sum(1) / mask.sum(1).clamp(min=1))[:, None]  # (B, 1)
    ratio = logs.exp()
    each, below, above = clipped(ratio, advantages[:, None], low, high, options.get("delta"))
    metrics = {}
    if beta := options["beta"]:
        distance = third_estimate(reading.logprobs, reference)
        distance = distance * ratio if options["biasCorrection"] else distance
        each = each + beta * distance
        metrics["kl"] = mean(distance, mask)
    rows, lengths = mask.shape[0], mask.sum(1).clamp(min=1)
    kind, each = options["lossType"], each * mask
    if kind == "grpo":
        loss = (each.sum(1) / lengths).mean()
    elif kind == "bnpo":
        loss = each.sum() / mask.sum().clamp(min=1)
    elif kind == "dr_grpo":
        loss = each.sum() / (rows * options["maxCompletionLength"])
    else:
        assert kind == "dapo", kind
        loss = each.sum() / (tokens / parts)
    of_tokens = ratio.shape[1] > 1
    over = lambda hit: mean(hit.to(ratio.dtype), mask) if of_tokens else hit.to(ratio.dtype).mean()
    share = lambda hit: (hit.to(ratio.dtype) * mask).sum(1) / lengths
    by_row = lambda hit: share(hit)[mask.sum(1) > 0] if of_tokens else hit.to(ratio.dtype)[:, 0]
    metrics["entropy"] = mean(reading.entropy, mask)
    metrics["clip_ratio/low_mean"], metrics["clip_ratio/high_mean"] = over(below), over(above)
    metrics["clip_ratio/region_mean"] = over(below | above)
    metrics["clip_ratio/low_min"], metrics["clip_ratio/high_max"] = by_row(below).min(), by_row(above).max()
    return loss, metrics, ratio


def whitened(values, mask, shift=True):
    """(values − mean) / √(variance + 1e-8) over the values in the mask; if `shift` is false, the mean is added again."""
    centre, count = mean(values, mask), mask.sum()
    variance = mean((values - centre) ** 2, mask) * count / (count - 1)
    result = (values - centre) * torch.rsqrt(variance + 1e-8)
    return (result if shift else result + centre) * mask


def returns_of(rewards, values, gamma, lam):
    """Generalized advantage estimation (Schulman et al. 2016), from the end backwards: advantages, and advantages + values."""
    advantages, last, following = [], 0.0, 0.0
    for t in reversed(range(rewards.shape[1])):
        last = rewards[:, t] + gamma * following - values[:, t] + gamma * lam * last
        following = values[:, t]
        advantages.insert(0, last)
    advantages = torch.stack(advantages, 1)
    return advantages, advantages + values


def prepared(rows, scores, old, reference, values, options):
    """The numbers of a PPO iteration before its updates, each (B, n): rewards, advantages, returns, and two masks.

    The mask `valued` marks the positions that have a value and a reward: completion tokens, and with scoreAt `behind`
    also the position after an end token, if there is room (TRL 1.12's p1). n is maxCompletionLength. Other positions
    are 0.
    """
    length, behind = options["maxCompletionLength"], options["scoreAt"] == "behind"
    counts = torch.tensor([len(row["ids"]) - row["from"] for row in rows])
    last = torch.where(counts < length, counts, counts - 1) if behind else counts - 1
    places = torch.arange(length)
    mask, valued = places < counts[:, None], places <= last[:, None]
    if (penalty := options.get("missingEosPenalty")) is not None:
        scores = scores - penalty * torch.tensor([not row["ended"] for row in rows])
    distance = (old - reference if options["klEstimator"] == "k1" else third_estimate(old, reference)) * mask
    penalties = -options["klCoef"] * distance
    rewards = penalties + F.one_hot(last, length) * scores[:, None]
    if options["whitenRewards"]:
        rewards = whitened(rewards, valued, shift=False)
    raw, returns = returns_of(rewards, values, options["gamma"], options["lam"])
    advantages = whitened(raw, mask) if options["whitenAdvantages"] else raw * mask
    metrics = {
        "objective/kl": distance.sum(1).mean(),
        "objective/entropy": (-old * mask).sum(1).mean(),
        "objective/non_score_reward": penalties.sum(1).mean(),
        "objective/scores": scores.mean(),
        "objective/rlhf_reward": penalties.sum(1).mean() + scores.mean(),
    }
    return {"rewards": rewards, "advantages": advantages, "returns": returns, "mask": mask, "valued": valued, "metrics": metrics}


def proximal(reading, predicted, old, values, made, options):
    """PPO's loss of a minibatch (Schulman et al. 2017) with the clipped loss of values, and its metrics."""
    mask, valued, returns = made["mask"], made["valued"], made["returns"]
    near = torch.clamp(predicted, values - options["cliprangeValue"], values + options["cliprangeValue"])
    free, bound = (predicted - returns) ** 2, (near - returns) ** 2
    value_loss = 0.5 * mean(torch.max(free, bound), valued)
    difference = (reading.logprobs - old) * mask
    ratio = difference.exp()
    each, below, above = clipped(ratio, made["advantages"], options["cliprange"], options["cliprange"])
    policy_loss = mean(each, mask)
    metrics = {
        "loss/policy_avg": policy_loss,
        "loss/value_avg": value_loss,
        "policy/approxkl_avg": 0.5 * mean(difference**2, mask),
        "policy/clipfrac_avg": mean((below | above).to(ratio.dtype), mask),
        "policy/entropy_avg": mean(reading.entropy, mask),
        "val/clipfrac_avg": mean((bound > free).to(ratio.dtype), valued),
        "val/ratio": mean(ratio, mask),
    }
    return policy_loss + options["vfCoef"] * value_loss, metrics, ratio


def language_model(model, rows):
    """Mean cross-entropy of next tokens, which PPO-ptx adds to its loss (Ouyang et al. 2022)."""
    tokens, targets = padded([row[:-1] for row in rows]), padded([row[1:] for row in rows], -1)
    logits = model.lm_head(states(model, tokens))
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
