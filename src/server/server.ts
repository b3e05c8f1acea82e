/** The whole of the server above the engine: its routes, and what listens. */
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
 * Serves.
 *
 * @param more routes besides those that run models: files and jobs, the page
 * @throws {Error} with the system's `code`, such as EADDRINUSE, when it cannot listen
 */
export function serveRoutes(
  served: Served,
  options: ListenOptions & { readonly more?: readonly Route[] },
): Promise<Listener> {
  const { more = [], ...rest } = options, counts: Counts = new Map(), routes = [...servingRoutes, ...more];
  return listen(handler(served, [...routes, ...stateRoutes(routes, counts)], counts), rest);
}
