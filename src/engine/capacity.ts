/** Whether what a program will take fits into what a device has left: one refusal for training, generating and loading. */
import type { Device } from "./device.ts";

/** In bytes of a device's memory, found on a device that only counts. */
export interface Needs {
  /** Of all that lives at once, at the most. */
  readonly bytes: number;
  /** Of the largest storage. */
  readonly largest: number;
}

export const gib = (bytes: number): string => `${Number((bytes / 2 ** 30).toPrecision(3))} GiB`;

/**
 * What a device lacks, as the end of a sentence: "takes 9.1 GiB, and the cpu device has 4 GiB, of which 1 GiB are in use".
 *
 * @param options.least whether `needs` are a lower bound; default false
 * @param options.reused bytes in use that `needs` count too; default 0
 * @returns undefined where `needs` fit
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
