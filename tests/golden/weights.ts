import type { Tensor } from "../../src/engine/tensor.ts";
import type { Fixture } from "./fixtures.ts";

/** Writes the array PREFIX.NAME into the parameter NAME. The names of both must be equal. */
export function loadWeights(
  module: { namedParameters(): Iterable<readonly [string, Tensor]> },
  fixture: Fixture<unknown>,
  prefix: string,
): void {
  const names = new Set<string>();
  for (const key of fixture.tensors.keys()) {
    if (key.startsWith(`${prefix}.`) && !key.endsWith(".grad")) names.add(key.slice(prefix.length + 1));
  }
  for (const [name, parameter] of module.namedParameters()) {
    if (!names.delete(name)) throw new Error(`${prefix}: PyTorch's module has no ${name}`);
    const { values, shape } = fixture.get(`${prefix}.${name}`);
    if (`${shape}` !== `${parameter.shape}`) throw new Error(`${name}: [${parameter.shape}], expected [${shape}]`);
    parameter.device.write(parameter.storage, values);
  }
  if (names.size > 0) throw new Error(`${prefix}: the module lacks ${[...names]}`);
}
