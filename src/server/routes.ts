/**
 * Dispatches requests to a table of routes. For every route it does the same four things: authenticate, validate the
 * request, turn errors into answers, count.
 */
import type { Access, Audience } from "./auth.ts";
import { readBody } from "./body.ts";
import { ApiError, apiError, invalid, notFound } from "./errors.ts";
import type { Engine, ServedModel } from "./engine_api.ts";
import type { Field, Fields, Schema } from "./fields.ts";
import type { Handler } from "./listen.ts";

/** What routes have access to. */
export interface Served {
  readonly engine: Engine;
  readonly access: Access;
  /** Called with an unexpected error and the id of its request. Default: prints them to standard error. */
  readonly onError?: (error: unknown, request: string) => void;
}

/** A request that has been authenticated and validated. */
export interface Call<Body = unknown> {
  /** The request's id, which is also in the answer's `x-request-id` header. */
  readonly id: string;
  readonly request: Request;
  /** Aborts when the client disconnects. */
  readonly signal: AbortSignal;
  /** The path's parameters: `{ model }` for `/v1/models/{model}`. */
  readonly path: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, unknown>>;
  readonly body: Body;
  /** Id of the client's key. */
  readonly key?: string;
  readonly served: Served;
  /** Turns an error in the middle of a stream into one for the client, and logs unexpected errors. */
  failed(error: unknown): ApiError;
}

/** One route. */
export interface Route<Body = unknown> {
  readonly method: "GET" | "POST" | "DELETE";
  /** The path, with a name in braces for a segment that varies: `/v1/models/{model}`. */
  readonly path: string;
  readonly audience: Audience;
  readonly summary: string;
  /** Declares the JSON body. If missing, the route reads the body itself, or has no body. */
  readonly body?: Field<Body>;
  /** Schema of a form, if the route reads one itself. */
  readonly form?: Schema;
  /** Declares the query's parameters; numbers are parsed. Other parameters are ignored. */
  readonly query?: Fields;
  /** Schema of a JSON answer, or the media type of any other answer. */
  readonly answers: Schema | string;
  answer(call: Call<Body>): Response | Promise<Response>;
}

/** Returns `one` without the type of its body, for tables of routes. */
export const route = <Body>(one: Route<Body>): Route => one as unknown as Route;

/** Number of requests by route and status. */
export type Counts = Map<string, [labels: { readonly route: string; readonly status: number }, count: number]>;

/** Answers requests by a table of routes. An unknown path is 404, also for clients without a key. */
export function handler(served: Served, routes: readonly Route[], counts: Counts = new Map()): Handler {
  const table = routes.map((route) => ({ route, segments: route.path.split("/") }));
  const find = (path: string) => {
    const parts = path.split("/");
    return table.filter(({ segments }) =>
      segments.length === parts.length &&
      segments.every((segment, i) => segment.startsWith("{") ? parts[i] !== "" : segment === parts[i])
    );
  };
  const { onError = (error, request) => console.error(`request ${request}:`, error) } = served;

  async function answer(request: Request, id: string, noted: (path: string) => void): Promise<Response> {
    const url = new URL(request.url), method = request.method === "HEAD" ? "GET" : request.method;
    const found = find(url.pathname.length > 1 ? url.pathname.replace(/\/$/, "") : url.pathname);
    const { route, segments } = found.find(({ route }) => route.method === method) ?? {};
    if (route) noted(route.path);
    const key = await served.access.admit(request, route?.audience ?? "open");
    if (!route || !segments) {
      if (found.length === 0) throw notFound(`Unknown URL: ${method} ${url.pathname.slice(0, 80)}`, "unknown_url");
      const allow = found.map(({ route }) => route.method).join(", ");
      const refusal = new ApiError(405, `${found[0].route.path} takes ${allow}`, { code: "method_not_allowed" });
      return refusal.response({ allow });
    }
    const failed = (error: unknown) => apiError(error, (error) => hasGone(request, error) || onError(error, id));
    return await route.answer({
      ...{ id, request, served, failed, signal: request.signal },
      ...key !== undefined && { key },
      path: pathOf(segments, url.pathname),
      query: queryOf(route.query ?? {}, url.searchParams),
      body: route.body && route.body.check(await readBody(request), ""),
    });
  }

  return async (request) => {
    const id = `req_${crypto.randomUUID().replaceAll("-", "")}`;
    let path = "unknown", response: Response;
    try {
      response = await answer(request, id, (found) => path = found);
    } catch (error) {
      response = hasGone(request, error) // the client has disconnected and reads no answer
        ? new Response(null, { status: 499 })
        : apiError(error, (error) => onError(error, id)).response();
      if (response.status === 401) response.headers.set("www-authenticate", "Bearer");
    }
    const { status } = response, name = `${path} ${status}`;
    counts.set(name, [{ route: path, status }, (counts.get(name)?.[1] ?? 0) + 1]);
    response.headers.set("x-request-id", id);
    response.headers.set("x-content-type-options", "nosniff");
    if (!response.headers.has("cache-control")) response.headers.set("cache-control", "no-store");
    return response;
  };
}

/** Whether the error only says that the client disconnected, perhaps while it was sending its body. */
const hasGone = ({ signal }: Request, error: unknown): boolean =>
  signal.aborted || error instanceof DOMException && error.name === "AbortError";

/**
 * The path's parameters. The path is split before its segments are decoded, because a name may contain an encoded
 * slash.
 */
function pathOf(segments: readonly string[], path: string): Record<string, string> {
  const parts = path.split("/");
  return Object.fromEntries(segments.flatMap((segment, i) => {
    if (!segment.startsWith("{")) return [];
    const name = segment.slice(1, -1);
    try {
      return [[name, decodeURIComponent(parts[i])]];
    } catch {
      throw invalid(name, `${name}: not percent-encoded UTF-8`);
    }
  }));
}

function queryOf(fields: Fields, given: URLSearchParams): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, field]) => {
      const text = given.get(name) ?? undefined, types = [field.schema.type].flat();
      const isNumber = types.includes("integer") || types.includes("number");
      const value = isNumber && text !== undefined && /^-?\d{1,15}(\.\d+)?$/.test(text) ? Number(text) : text;
      return [name, field.check(value, name)];
    }),
  );
}

/** Returns the model with this id. @throws {ApiError} 404 if it does not exist, or belongs to another key */
export function modelOf({ served, key }: Pick<Call, "served" | "key">, id: string): ServedModel {
  const model = served.engine.models(key).find((model) => model.id === id);
  if (model) return model;
  const shown = id.slice(0, 80);
  throw notFound(
    `The model '${shown}' does not exist or you do not have access to it; GET /v1/models lists yours`,
    "model_not_found",
    "model",
  );
}
