/**
 * An HTTP listener: `node:http`, with handlers that take a `Request` and return a `Response`.
 *
 * It exists because `Deno.serve` has no time-outs. Here three times are limited: how long a client takes to send its
 * headers, to send the next part of its body, and to read the next part of an answer. The number of connections is
 * limited, too: when it is reached, the connection that has been idle for the longest time is closed.
 */
import type * as http from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { builtin } from "../files/system.ts";
import { Connections } from "./connections.ts";

/**
 * Answers a request. The request's `signal` aborts only when the client disconnects before it has received the whole
 * answer.
 */
export type Handler = (request: Request) => Response | Promise<Response>;

/** Address of the server, and limits for clients. */
export interface ListenOptions {
  /** Address to listen on. Default 127.0.0.1. */
  readonly hostname?: string;
  /** Port to listen on; 0 takes any free port. */
  readonly port: number;
  /** Maximum number of open connections. Default 4,096. */
  readonly connections?: number;
  /** Seconds that a client has to send its headers, from the start of the connection or of the request. Default 10. */
  readonly headerSeconds?: number;
  /** Seconds that a connection stays open after an answer. Default 75. */
  readonly idleSeconds?: number;
  /** Maximum number of seconds in which a client sends no part of a body, or reads no part of an answer. Default 30. */
  readonly stallSeconds?: number;
}

/** A running listener. */
export interface Listener extends AsyncDisposable {
  readonly hostname: string;
  readonly port: number;
  /** How many connections are open. */
  readonly connections: number;
  /** Number of requests that are not completely answered yet. */
  readonly running: number;
  /**
   * Waits until all running requests are answered, at most `milliseconds`; then closes the server and all connections.
   */
  drain(milliseconds: number): Promise<void>;
}

const refusal = (message: string, code: string) =>
  JSON.stringify({ error: { message, type: "invalid_request_error", param: null, code } });
const BAD_REQUEST = refusal("This is not an HTTP request", "bad_request");
const json = { "content-type": "application/json" };

/**
 * Starts a listener.
 *
 * @throws {Error} with the system's `code`, such as EADDRINUSE, if it cannot listen
 */
export async function listen(handler: Handler, options: ListenOptions): Promise<Listener> {
  const { hostname = "127.0.0.1", port, connections: most = 4096 } = options;
  const { headerSeconds = 10, idleSeconds = 75, stallSeconds = 30 } = options;
  const { createServer } = builtin<typeof http>("node:http"), connections = new Connections(most);
  let running = 0, idle: (() => void) | undefined;
  const server = createServer({
    headersTimeout: 1000 * headerSeconds,
    requestTimeout: 0, // an upload can take long; one that stalls is closed below
    keepAliveTimeout: 1000 * idleSeconds,
    connectionsCheckingInterval: Math.min(1000, 100 * headerSeconds),
    maxHeaderSize: 16384,
  }, (request, response) => {
    if (request.socket.destroyed) return; // Node.js parses everything that it has read, also after the connection's end
    const gone = new AbortController(), closed = Promise.withResolvers<void>();
    let done: (() => void) | undefined;
    const over = () => {
      if (!response.writableEnded) gone.abort(new DOMException("The client has gone", "AbortError"));
      closed.resolve();
      if (!done) return;
      done();
      done = undefined;
      if (--running === 0) idle?.();
    };
    const client = { gone: gone.signal, closed: closed.promise, stall: 1000 * stallSeconds };
    const begin = () => void answer(handler, request, response, client).catch(() => request.socket.destroy());
    done = connections.busy(request.socket, { begin, left: over });
    if (!done) return;
    running++;
    response.on("close", over);
  });
  server.maxRequestsPerSocket = 0;
  server.on("connection", (socket) => connections.add(socket));
  server.on("clientError", (_, socket: Socket) => refuse(socket));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ port, host: hostname, backlog: 1024 }, () => resolve());
  });
  const close = async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    connections.closeAll();
    await closed;
  };
  return {
    hostname,
    port: (server.address() as AddressInfo).port,
    get connections() {
      return connections.size;
    },
    get running() {
      return running;
    },
    async drain(milliseconds) {
      if (running > 0) {
        const { promise, resolve } = Promise.withResolvers<void>(), timer = setTimeout(resolve, milliseconds);
        idle = resolve;
        await promise;
        clearTimeout(timer);
      }
      await close();
    },
    [Symbol.asyncDispose]: close,
  };
}

/**
 * Answers 400 and closes the connection. Also called after a time-out, which Node.js reports again until the connection
 * is closed.
 */
function refuse(socket: Socket): void {
  if (!socket.writable || socket.bytesWritten > 0) return void socket.destroy();
  const length = BAD_REQUEST.length, head = "content-type: application/json\r\nconnection: close";
  socket.end(`HTTP/1.1 400 Bad Request\r\n${head}\r\ncontent-length: ${length}\r\n\r\n${BAD_REQUEST}`);
  setTimeout(() => socket.destroy(), 500);
}

/** The state of a client that waits for an answer. */
interface Client {
  /** Aborts when the client disconnects before it has the answer. */ readonly gone: AbortSignal;
  /** Resolves when the answer has been sent, or the client has disconnected. */ readonly closed: Promise<void>;
  /** Maximum number of milliseconds in which the client reads no part of the answer. */ readonly stall: number;
}

/** Passes a request to the handler, and the handler's answer to the client. */
async function answer(
  handler: Handler,
  incoming: http.IncomingMessage,
  outgoing: http.ServerResponse,
  client: Client,
): Promise<void> {
  const { gone, closed, stall } = client;
  const request = requestOf(incoming, gone, stall);
  const response = request ? await handler(request) : unhandled(incoming);
  if (gone.aborted || outgoing.destroyed) return void response.body?.cancel().catch(() => {});
  // Without `close`, Node.js would parse the unread rest of the body as the next request.
  const unread = !incoming.complete;
  if (unread) outgoing.setHeader("connection", "close");
  outgoing.writeHead(response.status, [...response.headers].flat());
  if (incoming.method === "HEAD") await response.body?.cancel(); // it may hold a file open
  else if (response.body) await send(response.body, outgoing, client);
  const timer = setTimeout(() => outgoing.destroy(), stall); // for a client that never reads the last part
  await Promise.race([closed, new Promise<void>((resolve) => outgoing.end(() => resolve()))]);
  clearTimeout(timer);
  if (!unread) return;
  incoming.resume(); // if the connection were reset at once, a client that is still sending could miss the answer
  setTimeout(() => incoming.socket.destroy(), 1000);
}

/** Returns the answer to a message from which no `Request` can be made, such as one with the method TRACE. */
function unhandled({ method = "" }: http.IncomingMessage): Response {
  if (!/^(TRACE|TRACK|CONNECT)$/.test(method)) return new Response(BAD_REQUEST, { status: 400, headers: json });
  const headers = { ...json, allow: "GET, POST, DELETE" },
    body = refusal("This method is not supported", "method_not_allowed");
  return new Response(body, { status: 405, headers });
}

/** Makes a `Request` from a message of `node:http`; undefined if that is not possible. */
function requestOf(incoming: http.IncomingMessage, signal: AbortSignal, stall: number): Request | undefined {
  const { method = "GET", url = "/", rawHeaders } = incoming, headers = new Headers();
  if (!url.startsWith("/")) return;
  try {
    for (let i = 0; i < rawHeaders.length; i += 2) headers.append(rawHeaders[i], rawHeaders[i + 1]);
    const has = headers.has("transfer-encoding") || Number(headers.get("content-length") ?? 0) > 0;
    const body = has && method !== "GET" && method !== "HEAD" ? bodyOf(incoming, stall) : undefined;
    // The URL is not built from the Host header, which is untrusted; src/server/auth.ts checks that header.
    return new Request(new URL(`http://localhost${url}`), {
      ...{ method, headers, signal },
      ...body && { body, duplex: "half" },
    } as RequestInit);
  } catch {
    return;
  }
}

/**
 * Streams a request's body. Cancelling the stream leaves the connection open, because the answer has to be sent on it.
 */
function bodyOf(incoming: http.IncomingMessage, stall: number): ReadableStream<Uint8Array> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  return new ReadableStream<Uint8Array>({
    start(controller) {
      const over = (end: () => void) => () => {
        clearTimeout(timer);
        try {
          end();
        } catch {
          // the stream has already been closed
        }
      };
      incoming.on("data", (chunk: Uint8Array) => {
        clearTimeout(timer);
        controller.enqueue(new Uint8Array(chunk));
        incoming.pause();
      });
      incoming.on("end", over(() => controller.close()));
      incoming.on("close", over(() => controller.error(new DOMException("The client has gone", "AbortError"))));
      incoming.on("error", over(() => controller.error(new DOMException("The client has gone", "AbortError"))));
      incoming.pause();
    },
    pull(controller) {
      timer = setTimeout(
        () => controller.error(new DOMException("No part of the body arrived in time", "TimeoutError")),
        stall,
      );
      incoming.resume();
    },
    cancel() {
      clearTimeout(timer);
      incoming.pause();
    },
  }, { highWaterMark: 0 });
}

/** Sends a body, as fast as the client reads it. */
async function send(
  body: ReadableStream<Uint8Array>,
  outgoing: http.ServerResponse,
  { gone, closed, stall }: Client,
): Promise<void> {
  const reader = body.getReader();
  outgoing.flushHeaders();
  gone.addEventListener("abort", () => reader.cancel().catch(() => {}));
  while (!gone.aborted && !outgoing.destroyed) {
    const { value, done } = await reader.read();
    if (done || gone.aborted || outgoing.destroyed) return;
    if (outgoing.write(value)) continue;
    const timer = setTimeout(() => outgoing.destroy(), stall);
    await Promise.race([closed, new Promise((resolve) => outgoing.once("drain", resolve))]);
    clearTimeout(timer);
  }
}
