import { DeviceError } from "../errors.ts";

/**
 * What a GPU says against what it was told. It says it later, so it surfaces as a {@linkcode DeviceError} at the next read,
 * and at every launch and read from then on.
 */
export class GpuErrors {
  /** The kernel that was encoded last. */
  latest = "any kernel";
  #failure: DeviceError | undefined;
  /** An error outside of all scopes. Mostly it follows from one that a scope has seen, which is the one to tell. */
  #uncaptured: DeviceError | undefined;
  #checks: Promise<void>[] = [];
  #closed = false;

  constructor(readonly gpu: GPUDevice) {
    gpu.addEventListener("uncapturederror", (event) => {
      event.preventDefault(); // or it is printed too
      this.#uncaptured ??= new DeviceError(`webgpu: ${(event as GPUUncapturedErrorEvent).error.message}`);
    });
    gpu.lost.then(({ reason, message }) => {
      if (!this.#closed) this.#fail(`the device was lost in or before ${this.latest}: ${message || reason}`);
    });
  }
  /** From now on, to be lost is no failure. */
  close(): void {
    this.#closed = true;
  }

  #fail(why: string): void {
    this.#failure ??= new DeviceError(`webgpu: ${why}`);
  }
  /** Creates something; what is said against it is told with its name, or as `explain` has it. */
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

  /** @throws {DeviceError} when something is known to have failed */
  check(): void {
    if (this.#failure) throw this.#failure;
  }
  /** Waits for what is said of all that was created. @throws {DeviceError} when something has failed */
  async settled(): Promise<void> {
    await Promise.all(this.#checks.splice(0));
    this.#failure ??= this.#uncaptured;
    this.check();
  }
  /** Why reading failed: the loss of the device may be told after what fails because of it. */
  async explain(error: unknown): Promise<DeviceError> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await Promise.race([this.gpu.lost, new Promise<void>((resolve) => timer = setTimeout(resolve, 100))]);
    clearTimeout(timer);
    return this.#failure ??= this.#uncaptured ?? new DeviceError(`webgpu: reading failed: ${(error as Error).message}`);
  }
}
