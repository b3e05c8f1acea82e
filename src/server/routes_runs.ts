/**
 * Routes for `/v1/runs`, which is not in OpenAI's API: the metrics of runs whose models are served, also while they are
 * being trained.
 */
import { exists, InputFile } from "../files/files.ts";
import { notFound } from "./errors.ts";
import { integer, optional } from "./fields.ts";
import { type Route, route } from "./routes.ts";

/** A run folder and the id of the model that is served from it. */
export interface ServedRun {
  readonly id: string;
  readonly path: string;
}

/** Maximum number of bytes of an answer. A line of metrics.jsonl has a few hundred bytes. */
const MOST = 2 ** 20;

/**
 * Makes the routes.
 *
 * @param runs the folders of `--model`; folders without metrics.jsonl are left out
 */
export function runRoutes(runs: readonly ServedRun[]): readonly Route[] {
  const fileOf = ({ path }: ServedRun) => `${path}/metrics.jsonl`;
  return [
    route({
      ...{
        method: "GET",
        path: "/v1/runs",
        audience: "key",
        summary: "Runs whose models are served; not in OpenAI's API",
      },
      answers: { type: "object", properties: { object: { const: "list" }, data: { type: "array" } } },
      async answer() {
        const found = await Promise.all(runs.map(async (run) => await exists(fileOf(run)) ? [run] : []));
        return Response.json({ object: "list", data: found.flat().map(({ id }) => ({ id, object: "run" })) });
      },
    }),
    route({
      ...{ method: "GET", path: "/v1/runs/{run}/metrics", audience: "key", answers: "application/jsonl" },
      summary: "Complete lines of a run's metrics.jsonl from a byte on; not in OpenAI's API",
      query: { after: optional(integer({ min: 0, max: 2 ** 50 }), 0) },
      async answer({ path, query }) {
        const run = runs.find(({ id }) => id === path.run);
        if (!run || !await exists(fileOf(run))) {
          throw notFound("The run does not exist; GET /v1/runs lists the runs", "run_not_found", "run");
        }
        using file = await InputFile.open(fileOf(run));
        const after = query.after as number, bytes = new Uint8Array(Math.max(0, Math.min(MOST, file.size - after)));
        const read = bytes.subarray(0, await file.fill(after, bytes));
        const headers = { "content-type": "application/jsonl" };
        return new Response(read.subarray(0, read.lastIndexOf(0x0a) + 1), { headers });
      },
    }),
  ];
}
