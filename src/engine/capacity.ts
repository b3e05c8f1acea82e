/**
 * Checks whether a computation fits into a device's free memory. Training, generating and loading all use it, with the
 * same message.
 */
import type { Device } from "./device.ts";

/** The memory that a computation needs, in bytes, measured on a device that only counts (`device/dry.ts`). */
export interface Needs {
  /** Peak size of all storages together. */
  readonly bytes: number;
  /** Size of the largest storage. */
  readonly largest: number;
}

/** Formats bytes in GiB, with three digits. */
export const gib = (bytes: number): string => `${Number((bytes / 2 ** 30).toPrecision(3))} GiB`;

/**
 * Says what a device lacks, as the end of a sentence: "takes 9.1 GiB, and the cpu device has 4 GiB, of which 1 GiB are
 * in use".
 *
 * @param options.least whether `needs` are a lower bound; default false
 * @param options.reused bytes already in use that `needs` include; default 0
 * @returns undefined if `needs` fit
 */
export function shortage(
  { bytes, largest }: Needs,
  device: Pick<Device, "name" | "capacity" | "memory">,
  { least = false, reused = 0 } = {},
): string | undefined {
  const { all, one, limit } = device.capacity, used = device.memory().bytes - reused, most = least ? "more than " : "";
  if (bytes > all - used) {
    const there = used > 0 ? `${gib(all)}, of which ${gib(used)} are in use` : gib(all);
    return `takes ${most}${gib(bytes)}, and the ${device.name} device has ${there}`;
  }
  if (largest > one) return `takes a buffer of ${most}${gib(largest)}, and ${limit} is ${gib(one)}`;
}
