/** Routes for the state of the server: health, metrics, and the OpenAPI document. */
import type { Schema } from "./fields.ts";
import { metricLines } from "./metrics.ts";
import { openapi } from "./openapi.ts";
import { type Counts, type Route, route } from "./routes.ts";

const health: Schema = {
  type: "object",
  required: ["status"],
  properties: { status: { enum: ["ok", "not ready", "stopped"] } },
};

/**
 * Makes the routes for the server's state.
 *
 * @param routes the other routes, which `/openapi.json` describes too
 * @param counts number of requests by route and status, for `/metrics`
 */
export function stateRoutes(routes: readonly Route[], counts: Counts): readonly Route[] {
  const own: Route[] = [
    route({
      ...{
        method: "GET",
        path: "/health",
        audience: "open",
        summary: "Whether the engine is running",
        answers: health,
      },
      answer: ({ served: { engine: { health: { alive } } } }) => state(alive ? "ok" : "stopped"),
    }),
    route({
      ...{ method: "GET", path: "/health/ready", audience: "open", answers: health },
      summary: "Whether models are loaded and the engine makes progress",
      answer: ({ served: { engine: { health: { alive, ready } } } }) =>
        state(!alive ? "stopped" : ready ? "ok" : "not ready"),
    }),
    route({
      ...{ method: "GET", path: "/metrics", audience: "local", answers: "text/plain" },
      summary: "Metrics in Prometheus's format",
      answer: ({ served }) =>
        new Response(requestLines(counts) + served.engine.metrics(), {
          headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
        }),
    }),
    route({
      ...{ method: "GET", path: "/openapi.json", audience: "local", summary: "This document", answers: {} },
      answer: () => new Response(document, { headers: { "content-type": "application/json" } }),
    }),
  ];
  const document = JSON.stringify(openapi([...routes, ...own]));
  return own;
}

const state = (status: string) =>
  Response.json({ status }, status === "ok" ? {} : { status: 503, headers: { "retry-after": "5" } });

const requestLines = (counts: Counts) =>
  metricLines("nanogpt_requests_total", "counter", "Requests answered.", counts.values().toArray());
