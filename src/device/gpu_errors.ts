import { DeviceError } from "../errors.ts";

/**
 * Collects the errors of a GPU. WebGPU reports errors asynchronously, so an error is thrown as a
 * {@linkcode DeviceError} by the next read, and by every launch and read afterwards.
 */
export class GpuErrors {
  /** Name of the kernel that was encoded last. */
  latest = "any kernel";
  #failure: DeviceError | undefined;
  /**
   * An error outside all error scopes. It is mostly a consequence of an error inside a scope, which takes precedence.
   */
  #uncaptured: DeviceError | undefined;
  #checks: Promise<void>[] = [];
  #closed = false;

  constructor(readonly gpu: GPUDevice) {
    gpu.addEventListener("uncapturederror", (event) => {
      event.preventDefault(); // otherwise the error is printed, too
      this.#uncaptured ??= new DeviceError(`webgpu: ${(event as GPUUncapturedErrorEvent).error.message}`);
    });
    gpu.lost.then(({ reason, message }) => {
      if (!this.#closed) this.#fail(`the device was lost in or before ${this.latest}: ${message || reason}`);
    });
  }
  /** Closes the device: losing it is not an error any more. */
  close(): void {
    this.#closed = true;
  }

  #fail(why: string): void {
    this.#failure ??= new DeviceError(`webgpu: ${why}`);
  }
  /** Calls `create` and records its errors, with the name `what` or, if given, the text of `explain`. */
  scoped<T>(what: string, create: () => T, explain?: () => Promise<string | undefined>): T {
    this.gpu.pushErrorScope("validation");
    this.gpu.pushErrorScope("out-of-memory");
    const made = create();
    for (let scope = 0; scope < 2; scope++) {
      const check = this.gpu.popErrorScope().then(async (error) => {
        if (error) this.#fail(await explain?.() ?? `${what}: ${error.message}`);
      });
      this.#checks.push(check);
    }
    return made;
  }

  /** Throws the first error known so far. @throws {DeviceError} */
  check(): void {
    if (this.#failure) throw this.#failure;
  }
  /** Waits for the results of all error scopes. @throws {DeviceError} when there was an error */
  async settled(): Promise<void> {
    await Promise.all(this.#checks.splice(0));
    this.#failure ??= this.#uncaptured;
    this.check();
  }
  /**
   * Finds out why a read failed. If the device was lost, the notice can come after the failed read: it is awaited for
   * 100 ms.
   */
  async explain(error: unknown): Promise<DeviceError> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await Promise.race([this.gpu.lost, new Promise<void>((resolve) => timer = setTimeout(resolve, 100))]);
    clearTimeout(timer);
    return this.#failure ??= this.#uncaptured ?? new DeviceError(`webgpu: reading failed: ${(error as Error).message}`);
  }
}
