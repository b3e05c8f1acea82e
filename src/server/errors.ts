/**
 * Errors in the format that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`, with a status
 * that says whether the client should retry.
 *
 * OpenAI's clients retry twice after 408, 409, 429 and 500 and above, so an invalid request never gets one of these
 * statuses. Every message is written by this server's own code: the text of an unexpected exception is never part of an
 * answer.
 */
import { DeviceError } from "../errors.ts";
import { codeOf } from "../files/system.ts";
import { Draining, QueueFull, Unavailable } from "./engine_api.ts";

/** What an {@linkcode ApiError} says besides its message. */
export interface ErrorOptions {
  /** A code such as `model_not_found`; null if the error's type says enough. */
  readonly code?: string | null;
  /** The invalid parameter. */
  readonly param?: string | null;
  /** Seconds after which the client should retry. */
  readonly retryAfter?: number;
}

/** An error that is sent to the client. */
export class ApiError extends Error {
  /** The class's name. */ override name = "ApiError";

  constructor(readonly status: number, message: string, readonly options: ErrorOptions = {}) {
    super(message);
  }

  /** The error's type, as OpenAI's API names it. */
  get type(): string {
    const { status } = this;
    if (status === 401) return "authentication_error";
    if (status === 403) return "permission_error";
    if (status === 429) return "rate_limit_error";
    return status >= 500 ? "server_error" : "invalid_request_error";
  }

  /** The JSON body of an answer or of an event in a stream. */
  get body(): { readonly error: Record<string, unknown> } {
    const { code = null, param = null } = this.options;
    return { error: { message: this.message, type: this.type, param, code } };
  }

  /** The error as an HTTP answer. */
  response(headers: Record<string, string> = {}): Response {
    const { retryAfter } = this.options, all = new Headers(headers);
    if (retryAfter !== undefined) all.set("retry-after", `${retryAfter}`);
    return Response.json(this.body, { status: this.status, headers: all });
  }
}

/** Thrown if the disk is full. Clients should not retry at once. */
export class DiskFull extends ApiError {
  constructor() {
    super(507, "The server's disk is full", { code: "disk_full" });
  }
  override response(): Response {
    return super.response({ "x-should-retry": "false" });
  }
}
/** Whether an error says that the disk is full. */
export const isFull = (error: unknown): boolean =>
  error instanceof DiskFull || ["ENOSPC", "EDQUOT"].includes(codeOf(error) ?? "") ||
  /no space left|quota exceeded|disk is full|disk I\/O error/i.test(`${error}`);

/** Makes an error with status 400, for an invalid value of a parameter. */
export function invalid(param: string | null, message: string, code: string | null = "invalid_value"): ApiError {
  return new ApiError(400, message, { param, code });
}

/** Makes an error with status 404, for something that does not exist, or that the client may not see. */
export function notFound(message: string, code: string | null = null, param: string | null = null): ApiError {
  return new ApiError(404, message, { code, param });
}

/**
 * Turns anything thrown into an error for the client.
 *
 * @param unexpected called with errors that this server did not expect
 */
export function apiError(error: unknown, unexpected: (error: unknown) => void): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof QueueFull) {
    const { retryAfter } = error, code = "rate_limit_exceeded";
    return new ApiError(429, `Too many requests are waiting; retry in ${retryAfter} s`, { code, retryAfter });
  }
  if (error instanceof Draining) {
    return new ApiError(503, "The server is shutting down", { code: "shutting_down", retryAfter: 5 });
  }
  if (error instanceof Unavailable) {
    const { retryAfter } = error, code = "model_unavailable";
    return new ApiError(503, "The model does not fit into memory beside the models that are in use", {
      code,
      retryAfter,
    });
  }
  unexpected(error);
  if (error instanceof DeviceError) {
    const message =
      "The server has too little memory for this request, for example for log-probabilities of a long prompt";
    return new ApiError(503, message, { code: "out_of_memory", retryAfter: 10 });
  }
  return new ApiError(500, "Internal server error; see this request's id in the server's log", {
    code: "internal_error",
  });
}
