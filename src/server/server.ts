/** Connects the routes to the listener: the server without its engine. */
import { listen, type Listener, type ListenOptions } from "./listen.ts";
import { type Counts, handler, type Route, type Served } from "./routes.ts";
import { chatRoutes } from "./routes_chat.ts";
import { completionRoutes } from "./routes_completions.ts";
import { embeddingRoutes } from "./routes_embeddings.ts";
import { modelRoutes } from "./routes_models.ts";
import { responseRoutes } from "./routes_responses.ts";
import { stateRoutes } from "./routes_state.ts";

/** The routes that run models. */
export const servingRoutes: readonly Route[] = [
  ...modelRoutes,
  ...completionRoutes,
  ...chatRoutes,
  ...responseRoutes,
  ...embeddingRoutes,
];

/**
 * Starts a server with the routes that run models, `/health`, `/metrics` and `/openapi.json`.
 *
 * @param more further routes: files and jobs, the page
 * @throws {Error} with the system's `code`, such as EADDRINUSE, if the server cannot listen
 */
export function serveRoutes(
  served: Served,
  options: ListenOptions & { readonly more?: readonly Route[] },
): Promise<Listener> {
  const { more = [], ...rest } = options, counts: Counts = new Map(), routes = [...servingRoutes, ...more];
  return listen(handler(served, [...routes, ...stateRoutes(routes, counts)], counts), rest);
}
