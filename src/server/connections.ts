/** The server's open connections, and which of them is closed when there are too many. */
import type { Socket } from "node:net";

/** Maximum number of waiting requests on one connection. */
const MOST_PIPELINED = 16;

/** A request on a connection. */
interface Waiting {
  /** Answers the request. */
  begin(): void;
  /**
   * Called if the connection closes before the request is answered. (In Node.js, the response to a request that still
   * waits for an earlier one has no event for this.)
   */
  left(): void;
}

/** The open connections, ordered by how long they have been idle, the longest first. */
export class Connections {
  /** For each connection, its unanswered requests, in order. The first one is being answered. */
  readonly #all = new Map<Socket, Set<Waiting>>();

  constructor(readonly most: number) {}

  get size(): number {
    return this.#all.size;
  }
  add(socket: Socket): void {
    if (this.#all.size >= this.most) {
      const longest = this.#all.entries().find(([, waiting]) => waiting.size === 0)?.[0];
      if (longest) this.#remove(longest);
      else return void socket.destroy();
    }
    const waiting = new Set<Waiting>();
    socket.setNoDelay(true);
    socket.on("close", () => {
      this.#all.delete(socket);
      for (const request of waiting) request.left();
    });
    socket.on("error", () => socket.destroy());
    this.#all.set(socket, waiting);
  }
  /**
   * Registers a request, and begins it when the connection's earlier requests are answered. Before each further request
   * other connections get a turn, so that a client with many requests delays others only by one request.
   *
   * A connection with too many waiting requests is closed: a client that sends requests without waiting for answers
   * would fill the memory, because requests are read faster than they are answered.
   *
   * @returns a function to call when the request is answered; undefined if the connection was closed
   */
  busy(socket: Socket, request: Waiting): (() => void) | undefined {
    const waiting = this.#all.get(socket);
    if (!waiting || waiting.size >= MOST_PIPELINED) return void this.#remove(socket);
    waiting.add(request);
    if (waiting.size === 1) request.begin();
    return () => {
      if (!waiting.delete(request)) return;
      const [next] = waiting;
      // Unlike setImmediate, a timer lets other connections proceed.
      if (next) setTimeout(() => waiting.has(next) && next.begin(), 0);
      else if (this.#all.delete(socket)) this.#all.set(socket, waiting); // idle from now on, so it moves to the end
    };
  }
  closeAll(): void {
    for (const socket of this.#all.keys()) this.#remove(socket);
  }
  #remove(socket: Socket): void {
    this.#all.delete(socket);
    socket.destroy();
  }
}
