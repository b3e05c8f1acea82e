/** The server's open connections, and which of them is closed when there are too many. */
import type { Socket } from "node:net";

/** Maximum number of waiting requests on one connection. */
const MOST_PIPELINED = 16;

/** The open connections, ordered by how long they have been idle, the longest first. */
export class Connections {
  /** For each connection, the callbacks of its waiting requests, which are called if the connection closes. */
  readonly #all = new Map<Socket, Set<() => void>>();

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
    const waiting = new Set<() => void>();
    socket.setNoDelay(true);
    socket.on("close", () => {
      this.#all.delete(socket);
      for (const left of waiting) left();
    });
    socket.on("error", () => socket.destroy());
    this.#all.set(socket, waiting);
  }
  /**
   * Registers a request. A connection with too many waiting requests is closed: a client that sends requests without
   * waiting for answers would fill the memory, because requests are read faster than they are answered.
   *
   * @param left called if the connection closes before the request is answered. (In Node.js, the response to a request
   *   that still waits for an earlier one has no event for this.)
   * @returns a function to call when the request is answered; undefined if the connection was closed
   */
  busy(socket: Socket, left: () => void): (() => void) | undefined {
    const waiting = this.#all.get(socket);
    if (waiting && waiting.size < MOST_PIPELINED) {
      waiting.add(left);
      return () => {
        if (!waiting.delete(left) || waiting.size > 0 || !this.#all.delete(socket)) return;
        this.#all.set(socket, waiting); // idle from now on, so it moves to the end
      };
    }
    this.#remove(socket);
    return undefined;
  }
  closeAll(): void {
    for (const socket of this.#all.keys()) this.#remove(socket);
  }
  #remove(socket: Socket): void {
    this.#all.delete(socket);
    socket.destroy();
  }
}
