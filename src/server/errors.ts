/**
 * Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`, and a status that says whether to try again.
 *
 * Clients try 408, 409, 429 and 500 and above again, twice: so what is wrong with a request is never one of those. Texts are written
 * here and in the checks; what an exception says is never part of an answer.
 */
import { DeviceError } from "../errors.ts";
import { Draining, QueueFull, Unavailable } from "./engine_api.ts";

/** What an {@linkcode ApiError} says besides its message. */
export interface ErrorOptions {
  /** Such as `model_not_found`; null where the type says it. */
  readonly code?: string | null;
  /** The parameter that it is about. */
  readonly param?: string | null;
  /** When to come again, in seconds. */
  readonly retryAfter?: number;
}

/** An error for the client. */
export class ApiError extends Error {
  /** Of the class. */ override name = "ApiError";

  constructor(readonly status: number, message: string, readonly options: ErrorOptions = {}) {
    super(message);
  }

  /** As OpenAI's API names the kind. */
  get type(): string {
    const { status } = this;
    if (status === 401) return "authentication_error";
    if (status === 403) return "permission_error";
    if (status === 429) return "rate_limit_error";
    return status >= 500 ? "server_error" : "invalid_request_error";
  }

  /** The body of an answer, and of an event in a stream. */
  get body(): { readonly error: Record<string, unknown> } {
    const { code = null, param = null } = this.options;
    return { error: { message: this.message, type: this.type, param, code } };
  }

  /** The answer. */
  response(headers: Record<string, string> = {}): Response {
    const { retryAfter } = this.options, all = new Headers(headers);
    if (retryAfter !== undefined) all.set("retry-after", `${retryAfter}`);
    return Response.json(this.body, { status: this.status, headers: all });
  }
}

/** A parameter with a value that cannot be used: 400. */
export function invalid(param: string | null, message: string, code: string | null = "invalid_value"): ApiError {
  return new ApiError(400, message, { param, code });
}

/** What is not there for this client: 404. */
export function notFound(message: string, code: string | null = null, param: string | null = null): ApiError {
  return new ApiError(404, message, { code, param });
}

/**
 * The answer to a client for anything that was thrown.
 *
 * @param unexpected takes errors that were not thrown on purpose
 */
export function apiError(error: unknown, unexpected: (error: unknown) => void): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof QueueFull) {
    const { retryAfter } = error, code = "rate_limit_exceeded";
    return new ApiError(429, `Too many requests wait here: come again in ${retryAfter} s`, { code, retryAfter });
  }
  if (error instanceof Draining) {
    return new ApiError(503, "The server is shutting down", { code: "shutting_down", retryAfter: 5 });
  }
  if (error instanceof Unavailable) {
    const { retryAfter } = error, code = "model_unavailable";
    return new ApiError(503, "The model does not fit into memory beside those that are busy", { code, retryAfter });
  }
  unexpected(error);
  if (error instanceof DeviceError) {
    const message = "The server lacks memory for what the request asks, such as log-probabilities of a long prompt";
    return new ApiError(503, message, { code: "out_of_memory", retryAfter: 10 });
  }
  return new ApiError(500, "The server had an error; its log says which, under this request's id", {
    code: "internal_error",
  });
}
