/** The text and charts of the example's page. */
import { type Chart, chart, heading, page, paragraph, type Series, table } from "./page.ts";
import type { Outcome, Point } from "./rlhf.ts";
import { PROMPTS } from "./tunes.ts";

const frontier = (by: "taste" | "model", { curves, results, human }: Outcome): Chart => {
  const places = (points: readonly Point[]) => points.map((one): [number, number] => [one.kl, one[by]]);
  const methods = [...new Set(results.filter(({ way }) => way.length === 0).map(({ method }) => method))];
  const dots = methods.map((method): Series => {
    const own = results.filter((one) => one.method === method);
    return {
      name: method,
      kind: "dots",
      points: places(own),
      labels: method === "PPO" ? own.map(({ beta }) => `β ${beta}`) : [],
    };
  });
  const known: Series = { name: "π* for the taste", kind: "line", points: places(curves.taste) };
  return {
    title: by === "taste" ? "The listener's taste" : "The reward model's score",
    x: "KL to the first policy (nats an answer)",
    y: by === "taste" ? "mean taste" : "mean score",
    series: [
      { name: "π* for the reward model", kind: "line", points: places(curves.model) },
      ...dots,
      { name: "fixed points of GRPO's loss", kind: "dashed", points: places(curves.grpo) },
      ...(by === "taste" && !human ? [known] : []),
    ],
  };
};

/** A chart of the progress of the runs that were evaluated during training. */
function ways({ results, human }: Outcome): Chart {
  const long = results.filter(({ way }) => way.length > 0);
  const series = long.flatMap(({ method, way }): Series[] => {
    const of = (by: "taste" | "model") => way.map((one, i): [number, number] => [i / (way.length - 1), one[by]]);
    const model: Series = { name: `${method}: the reward model's score`, kind: "dashed", points: of("model") };
    return human ? [model] : [model, { name: `${method}: the taste`, kind: "line", points: of("taste") }];
  });
  return {
    title: "A reward model that is wrong outside its data",
    x: "fraction of the run",
    y: "mean over the answers",
    series,
  };
}

/** Returns the HTML of the example's page. */
export function report(outcome: Outcome): string {
  const { accuracy, choices, first, results, human } = outcome,
    percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const rows = results.map(({ method, beta, taste, model, kl, distance, seconds }) => [
    ...[method, `${beta}`, human ? "" : taste.toFixed(2), model.toFixed(2), kl.toFixed(2)],
    ...[Number.isNaN(distance) ? "" : distance.toFixed(3), seconds.toFixed(0)],
  ]);
  const least = Math.min(...results.filter(({ beta }) => beta > 0).map(({ beta }) => beta));
  const shown = results.filter(({ beta }) => beta === least || beta === 0);
  const judged = human ? "you preferred" : "the listener preferred";
  const best = human
    ? ""
    : ` The taste itself predicts ${percent(accuracy.best)}, because the listener's choices are partly random.`;
  return page("From preferences to a policy", [
    paragraph(
      `A model that writes tunes was trained on ${choices} choices between pairs of its answers. The reward model ` +
        `predicts the answer that ${judged} in ${percent(accuracy.model)} of the held-out choices.${best}`,
    ),
    heading("The frontier"),
    paragraph(
      "Each dot is a trained policy, evaluated over all of its answers. No policy can be above the line of " +
        "π* ∝ π_ref · exp(r / β). The first chart shows the taste, the second the reward model's score. For each β, the " +
        "optimal policy is one point of the line. " +
        "KL to π* uses the reward model's π*, but for DPO, which has no reward model, the π* of the taste.",
    ),
    ...(human ? [] : [chart(frontier("taste", outcome))]),
    chart(frontier("model", outcome)),
    table([["method", "β", human ? "" : "taste", "reward model", "KL", "KL to π*", "seconds"], ...rows]),
    heading("Where the reward model is wrong"),
    paragraph(
      "The first policy rarely leaps twice and nearly always begins as asked, so the choices say little about other " +
        "answers. Without a penalty the policy moves to such answers: their score rises, but the listener's taste does " +
        "not. With a penalty it stays where the choices are informative.",
    ),
    chart(ways(outcome)),
    heading("Answers before and after"),
    table([
      ["", ...PROMPTS.slice(0, first.answers.length)],
      ["before", ...first.answers],
      ...shown.map(({ method, beta, answers }) => [`${method}, β ${beta}`, ...answers]),
    ]),
  ]);
}
