/**
 * The table of routes, and what all of them do alike: who may ask, what is in the request, what becomes of an error, what is counted.
 */
import type { Access, Audience } from "./auth.ts";
import { readBody } from "./body.ts";
import { ApiError, apiError, invalid, notFound } from "./errors.ts";
import type { Engine, ServedModel } from "./engine_api.ts";
import type { Field, Fields, Schema } from "./fields.ts";
import type { Handler } from "./listen.ts";

/** What routes work with. */
export interface Served {
  readonly engine: Engine;
  readonly access: Access;
  /** Takes what nobody threw on purpose, and under which request. Default: standard error. */
  readonly onError?: (error: unknown, request: string) => void;
}

/** A request that may be answered. */
export interface Call<Body = unknown> {
  /** Its id, which the answer says too. */
  readonly id: string;
  readonly request: Request;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  /** What stands in the path's braces. */
  readonly path: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, unknown>>;
  readonly body: Body;
  /** Of whoever asks. */
  readonly key?: string;
  readonly served: Served;
  /** What the client is told of an error in a stream. */
  failed(error: unknown): ApiError;
}

/** One route. */
export interface Route<Body = unknown> {
  readonly method: "GET" | "POST" | "DELETE";
  /** With names in braces for single segments: `/v1/models/{model}`. */
  readonly path: string;
  readonly audience: Audience;
  readonly summary: string;
  /** Of its JSON body; without it the route reads the body itself, or has none. */
  readonly body?: Field<Body>;
  /** Of a form that it reads itself. */
  readonly form?: Schema;
  /** Of its query; numbers are read as such. Others are not looked at. */
  readonly query?: Fields;
  /** Of its answer in JSON, or the media type of another. */
  readonly answers: Schema | string;
  answer(call: Call<Body>): Response | Promise<Response>;
}

/** For tables: a route whose body has been checked. */
export const route = <Body>(one: Route<Body>): Route => one as unknown as Route;

/** Requests by route and status. */
export type Counts = Map<string, [labels: { readonly route: string; readonly status: number }, count: number]>;

/** Answers requests by a table of routes; what is no route is 404, also to those without a key. */
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
      if (found.length === 0) throw notFound(`There is no ${method} ${url.pathname.slice(0, 80)} here`, "unknown_url");
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
      response = hasGone(request, error) // nobody reads the answer
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

/** Whether it is no error but a client that has left, perhaps within its body. */
const hasGone = ({ signal }: Request, error: unknown): boolean =>
  signal.aborted || error instanceof DOMException && error.name === "AbortError";

/** Segments are decoded once, after the path has been cut: a name may contain a slash. */
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

/** @throws {ApiError} 404 for a model that is not there, or is another key's */
export function modelOf({ served, key }: Pick<Call, "served" | "key">, id: string): ServedModel {
  const model = served.engine.models(key).find((model) => model.id === id);
  if (model) return model;
  const shown = id.slice(0, 80);
  throw notFound(
    `The model '${shown}' does not exist, or is not yours: GET /v1/models lists those that there are`,
    "model_not_found",
    "model",
  );
}
