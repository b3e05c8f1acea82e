/** Where the time of a run goes: calls, time and rates of each kernel, counted at the funnel. */
import type { Launch } from "./device.ts";

/** What a kernel's launches took together. */
export interface ProfileRow {
  /** How often the kernel ran. */ calls: number;
  /** How long all calls took. */ ms: number;
  /** Multiplications and additions; 0 of kernels that do not count them. */ flops: number;
  /** Of all operands. */ bytes: number;
}

/**
 * Collects the times of launches; a device that has one in `profile` fills it.
 *
 * @example
 * ```ts
 * import { createDevice, Profile } from "@nanogpt/ts";
 * import { matmul } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 }), x = device.tensor([1, 2, 3, 4], [2, 2]);
 * device.profile = new Profile();
 * matmul(x, x);
 * console.log(device.profile.table());
 * device.close();
 * ```
 */
export class Profile {
  #rows = new Map<string, ProfileRow>();
  /** Whose clock the times are from. */
  clock: "host" | "GPU" = "host";

  /** @internal Adds a launch, and how long it took. */
  add({ kernel, storages, sizes }: Launch, ms: number): void {
    let row = this.#rows.get(kernel.name);
    if (!row) this.#rows.set(kernel.name, row = { calls: 0, ms: 0, flops: 0, bytes: 0 });
    row.calls++;
    row.ms += ms;
    row.flops += kernel.flops?.(sizes) ?? 0;
    for (const name in storages) row.bytes += 4 * storages[name].length;
  }

  /** Forgets what it has collected: after a warm-up. */
  clear(): void {
    this.#rows.clear();
  }

  /** By kernel, the one that takes the longest first. */
  get rows(): [kernel: string, row: Readonly<ProfileRow>][] {
    return [...this.#rows].sort(([, a], [, b]) => b.ms - a.ms);
  }

  /** Calls, and milliseconds of all kernels together. */
  get total(): { calls: number; ms: number } {
    const rows = this.rows.map(([, row]) => row);
    return { calls: rows.reduce((sum, { calls }) => sum + calls, 0), ms: rows.reduce((sum, { ms }) => sum + ms, 0) };
  }

  /**
   * A line a kernel, the one that takes the longest first: calls, milliseconds in all, share of all kernels' time,
   * microseconds a call, and the rate: GF/s, billions of multiplications and additions a second, of kernels that count them,
   * else GB/s, billions of bytes of all operands a second.
   */
  table(): string {
    const { calls, ms } = this.total, heads = ["kernel", "calls", "ms", "share", "µs a call", "rate"];
    const rows = this.rows.map(([name, row]) => [
      name,
      `${row.calls}`,
      row.ms.toFixed(1),
      `${(100 * row.ms / ms).toFixed(1)} %`,
      (1000 * row.ms / row.calls).toFixed(1),
      row.flops > 0 ? `${(row.flops / row.ms / 1e6).toFixed(1)} GF/s` : `${(row.bytes / row.ms / 1e6).toFixed(1)} GB/s`,
    ]);
    const all = ["all", `${calls}`, ms.toFixed(1), "", calls > 0 ? (1000 * ms / calls).toFixed(1) : "", ""];
    const lines = [heads, ...rows, all], widths = heads.map((_, i) => Math.max(...lines.map((line) => line[i].length)));
    const text = lines.map((line) =>
      line.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join("  ").trimEnd()
    );
    return [`Times by the ${this.clock}'s clock`, ...text].join("\n");
  }
}
