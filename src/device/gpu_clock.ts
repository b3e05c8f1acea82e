import type { Profile } from "../engine/profile.ts";
import type { Launch } from "../engine/device.ts";

/** Maximum number of launches in one submission. */
const MOST = 2048;

interface Collected {
  readonly staging: GPUBuffer;
  readonly launches: readonly (readonly [Launch, Profile])[];
}

/**
 * Measures launches with the GPU's clock: one timestamp before each pass and one after it. Timestamps are resolved at
 * the end of a submission, and fetched when the device next reads a tensor.
 */
export class GpuClock {
  #queries: GPUQuerySet;
  #resolved: GPUBuffer;
  #launches: (readonly [Launch, Profile])[] = [];
  #collected: Collected[] = [];

  /** @param gpu a device with the feature `timestamp-query` */
  constructor(readonly gpu: GPUDevice) {
    this.#queries = gpu.createQuerySet({ type: "timestamp", count: 2 * MOST });
    this.#resolved = gpu.createBuffer({
      size: 16 * MOST,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
  }
  /** Whether no more launches fit into this submission. */
  get full(): boolean {
    return this.#launches.length === MOST;
  }
  /** The timestamps to write in the pass of a launch. */
  next(launch: Launch, profile: Profile): GPUComputePassTimestampWrites {
    const number = this.#launches.push([launch, profile]) - 1;
    return { querySet: this.#queries, beginningOfPassWriteIndex: 2 * number, endOfPassWriteIndex: 2 * number + 1 };
  }
  /** Resolves the timestamps at the end of a submission. */
  collect(encoder: GPUCommandEncoder): void {
    const launches = this.#launches.splice(0), { length } = launches;
    if (length === 0) return;
    const staging = this.gpu.createBuffer({
      size: 16 * length,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    encoder.resolveQuerySet(this.#queries, 0, 2 * length, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, staging, 0, 16 * length);
    this.#collected.push({ staging, launches });
  }
  /** Reads the collected times and adds them to the profiles. */
  async read(): Promise<void> {
    await Promise.all(
      this.#collected.splice(0).map(async ({ staging, launches }) => {
        await staging.mapAsync(GPUMapMode.READ);
        const ticks = new BigUint64Array(staging.getMappedRange()); // nanoseconds
        launches.forEach(([launch, profile], i) => profile.add(launch, Number(ticks[2 * i + 1] - ticks[2 * i]) / 1e6));
        staging.destroy();
      }),
    );
  }
}
