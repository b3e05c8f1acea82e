/** A profile of where time is spent: calls, time and rates of each kernel. */
import type { Launch } from "./device.ts";

/** Totals of all launches of one kernel. */
export interface ProfileRow {
  /** Number of launches. */ calls: number;
  /** Time of all launches, in milliseconds. */ ms: number;
  /** Multiplications and additions; 0 for kernels that do not count them. */ flops: number;
  /** Bytes of all operands, at 4 bytes an element. */ bytes: number;
}

/**
 * Collects the times of launches. Assign one to a device's `profile`.
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
  /** The clock that measured the times. */
  clock: "host" | "GPU" = "host";

  /** @internal Adds a launch that took `ms` milliseconds. */
  add({ kernel, storages, sizes }: Launch, ms: number): void {
    let row = this.#rows.get(kernel.name);
    if (!row) this.#rows.set(kernel.name, row = { calls: 0, ms: 0, flops: 0, bytes: 0 });
    row.calls++;
    row.ms += ms;
    row.flops += kernel.flops?.(sizes) ?? 0;
    for (const name in storages) row.bytes += 4 * storages[name].length;
  }

  /** Resets all totals, for example after a warm-up. */
  clear(): void {
    this.#rows.clear();
  }

  /** Totals by kernel, longest time first. */
  get rows(): [kernel: string, row: Readonly<ProfileRow>][] {
    return [...this.#rows].sort(([, a], [, b]) => b.ms - a.ms);
  }

  /** Number of launches and time in milliseconds of all kernels. */
  get total(): { calls: number; ms: number } {
    const rows = this.rows.map(([, row]) => row);
    return { calls: rows.reduce((sum, { calls }) => sum + calls, 0), ms: rows.reduce((sum, { ms }) => sum + ms, 0) };
  }

  /**
   * Formats a table with one line for each kernel, longest time first: calls, milliseconds, share of the total time,
   * microseconds per call, and a rate. The rate is in GF/s (10⁹ multiplications and additions per second) for kernels
   * that count them, otherwise in GB/s (10⁹ bytes of operands per second).
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
