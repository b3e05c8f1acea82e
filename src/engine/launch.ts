/** `launch`, the only function that runs kernels. */
import type { Device, Storage } from "./device.ts";
import { DeviceError, ShapeError } from "../errors.ts";
import { type AnyKernel, bindSizes, type Kernel, type Operands, type Params } from "../kernel.ts";
import type { Tensor } from "./tensor.ts";

type Optional<R extends Operands> = { [K in keyof R]: R[K]["optional"] extends true ? K : never }[keyof R];
type Brought<R extends Operands, Outputs> =
  & { readonly [K in Exclude<keyof R, Optional<R>>]: Tensor }
  & { readonly [K in keyof Outputs | Optional<R>]?: Tensor };

/**
 * Checks every operand, allocates the outputs that the caller did not pass, and runs the kernel on the operands'
 * device. No code below checks again: WASM code that runs without bounds checks relies on these checks.
 *
 * @throws {ShapeError} when a shape differs from the declared one, or cannot be inferred from the operands
 * @throws {DeviceError} when devices or types differ, or a written operand shares its storage with another operand
 */
export function launch<R extends Operands, U extends Operands, W extends Operands, P extends Params>(
  kernel: Kernel<R, U, W, P>,
  operands: Brought<R, U & W>,
  ...params: keyof P extends never ? [] : [Readonly<Record<keyof P, number>>]
): { [K in keyof (U & W)]: Tensor };
export function launch(
  kernel: AnyKernel,
  operands: Readonly<Record<string, Tensor | undefined>>,
  params: Readonly<Record<string, number>> = {},
): Record<string, Tensor> {
  const device = deviceOf(operands), refuse = (why: string) => new DeviceError(said(kernel, operands, why));
  if (!device) throw refuse("no operand");
  const sizes = bindSizes(kernel, operands, (why) => new ShapeError(said(kernel, operands, why)));
  const storages: Record<string, Storage> = {}, outputs: Record<string, Tensor> = {}, fresh: string[] = [];
  if (device.closed) throw refuse("the device is closed");
  for (const { name, shape, dtype, optional, also, laid, role } of kernel.operands) {
    let tensor = operands[name];
    if (!tensor) {
      if (optional) continue;
      if (role === "reads") throw refuse(`${name} is missing`);
      const actual = shape.map((axis) => typeof axis === "number" ? axis : sizes[axis]);
      if (actual.some(Number.isNaN)) {
        throw new ShapeError(said(kernel, operands, `pass ${name}: its shape does not follow from the operands`));
      }
      if (role === "updates") fresh.push(name);
      tensor = device.empty(actual, { dtype });
    }
    const storage = tensor.storage;
    if (tensor.device !== device) throw refuse(`${name} is on another device`);
    if (tensor.dtype !== dtype && !also?.some((other) => other === tensor.dtype)) {
      const known = [dtype, ...also ?? []].join(", ").replace(/, (?=\w+$)/, " or ");
      throw refuse(`${name} is ${tensor.dtype}, expected ${known}`);
    }
    const { panels } = storage, there = tensor.shape;
    if (panels && !laid) {
      throw refuse(`${name} is stored in panels, which only linear, embedding and matmul's right side read`);
    }
    if (
      panels &&
      (there.at(-1) !== panels.length || there.at(-2) !== panels.rows || tensor.size > panels.rows * panels.length)
    ) {
      throw refuse(`${name} is stored in panels of [${panels.rows},${panels.length}], which cannot take another shape`);
    }
    storages[name] = storage;
    if (role !== "reads") {
      for (const other in storages) {
        if (other !== name && storage.overlaps(storages[other])) {
          throw refuse(`${name} is written and shares its storage with ${other}`);
        }
      }
      storage.block.changed();
      outputs[name] = tensor;
    }
  }
  const ordered: Record<string, number> = {};
  for (const name in kernel.params) ordered[name] = params[name];
  device.run({ kernel, storages, sizes, params: ordered, fresh });
  return outputs;
}

function deviceOf(operands: Readonly<Record<string, Tensor | undefined>>): Device | undefined {
  for (const name in operands) if (operands[name]) return operands[name].device;
}

/** Formats an error message that names the op and the shapes that its kernel was called with. */
function said(kernel: AnyKernel, operands: Readonly<Record<string, Tensor | undefined>>, why: string): string {
  const given = kernel.operands.flatMap(({ name, role }) =>
    operands[name] && role === "reads" ? `${name} [${operands[name].shape}]` : []
  );
  const op = Object.values(operands).map((tensor) => tensor?.device.op).find((op) => op) ?? kernel.name;
  return `Cannot apply ${op} to ${given.join(" and ") || "nothing"}: ${why}`;
}
