/** Which connections there are, and which of them go first. */
import type { Socket } from "node:net";

/** The open connections, the one that has been idle for longest first. */
export class Connections {
  readonly #all = new Map<Socket, { busy: number }>();

  constructor(readonly most: number) {}

  get size(): number {
    return this.#all.size;
  }
  add(socket: Socket): void {
    if (this.#all.size >= this.most) {
      const longest = this.#all.entries().find(([, { busy }]) => busy === 0)?.[0];
      if (longest) this.#remove(longest);
      else return void socket.destroy();
    }
    socket.setNoDelay(true);
    socket.on("close", () => this.#all.delete(socket));
    socket.on("error", () => socket.destroy());
    this.#all.set(socket, { busy: 0 });
  }
  /** A request has come. @returns to be called when it is over */
  busy(socket: Socket): () => void {
    const state = this.#all.get(socket);
    if (state) state.busy++;
    return () => {
      if (!state || --state.busy > 0 || !this.#all.delete(socket)) return;
      this.#all.set(socket, state); // idle from now on: after all others
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
