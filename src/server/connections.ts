/** Which connections there are, and which of them go first. */
import type { Socket } from "node:net";

/** Requests of a connection that may wait for their answers. */
const MOST_PIPELINED = 16;

/** The open connections, the one that has been idle for longest first. */
export class Connections {
  /** With what is to be called for each request that waits when the connection closes. */
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
   * A request has come. A connection on which too many wait is closed: requests that are sent without waiting for answers are read
   * faster than they are answered, and there is no end to the memory that they take.
   *
   * @param left is called when the connection closes before the request is over: an answer that waits for another's end does not say so
   * @returns to be called when it is over; undefined where the connection has been closed
   */
  busy(socket: Socket, left: () => void): (() => void) | undefined {
    const waiting = this.#all.get(socket);
    if (waiting && waiting.size < MOST_PIPELINED) {
      waiting.add(left);
      return () => {
        if (!waiting.delete(left) || waiting.size > 0 || !this.#all.delete(socket)) return;
        this.#all.set(socket, waiting); // idle from now on: after all others
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
