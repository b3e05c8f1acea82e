/** What the example's page says. */
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
  const known: Series = { name: "the best for the taste", kind: "line", points: places(curves.taste) };
  return {
    title: by === "taste" ? "What the listener thinks of the answers" : "What the reward model thinks of them",
    x: "KL to the first policy (nats an answer)",
    y: by === "taste" ? "mean taste" : "mean score",
    series: [
      { name: "π* for the reward model", kind: "line", points: places(curves.model) },
      ...dots,
      { name: "where GRPO's loss comes to rest", kind: "dashed", points: places(curves.grpo) },
      ...(by === "taste" && !human ? [known] : []),
    ],
  };
};

/** How a run went that was looked at on the way. */
function ways({ results, human }: Outcome): Chart {
  const long = results.filter(({ way }) => way.length > 0);
  const series = long.flatMap(({ method, way }): Series[] => {
    const of = (by: "taste" | "model") => way.map((one, i): [number, number] => [i / (way.length - 1), one[by]]);
    const model: Series = { name: `${method}: the reward model's score`, kind: "dashed", points: of("model") };
    return human ? [model] : [model, { name: `${method}: the taste`, kind: "line", points: of("taste") }];
  });
  return {
    title: "A reward model that is wrong outside its data",
    x: "share of the run",
    y: "mean of the answers",
    series,
  };
}

/** The page. */
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
    : ` The taste itself is right about ${percent(accuracy.best)}: he is not always of the same mind.`;
  return page("From preferences to a policy", [
    paragraph(
      `A model that writes tunes was tuned to ${choices} choices between two of its answers. The reward model finds the answer that ` +
        `${judged} in ${percent(accuracy.model)} of the choices that it has not learned from.${best}`,
    ),
    heading("The frontier"),
    paragraph(
      "Each dot is a tuned policy, judged over all of its answers. None is above the line of π* ∝ π_ref · exp(r / β), in the first " +
        "chart of the taste, in the second of the reward model's score; with each β a policy should lie on it at a certain place. " +
        "The distance to π* is that for the reward model, and of DPO, which has none, that for the taste.",
    ),
    ...(human ? [] : [chart(frontier("taste", outcome))]),
    chart(frontier("model", outcome)),
    table([["method", "β", human ? "" : "taste", "reward model", "KL", "KL to π*", "seconds"], ...rows]),
    heading("Where the reward model is wrong"),
    paragraph(
      "The first policy seldom leaps twice, and nearly always begins as asked, so the choices say little about answers that do not. " +
        "Without a penalty the policy goes to such answers: its score goes up and what was meant does not. With a penalty it stays " +
        "where the choices tell something.",
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
