/**
 * Reads the fixtures that generate.py wrote: safetensors files with the cases as JSON in the metadata.
 *
 * It does not use the library's safetensors reader, because the fixtures also test that reader. The format: eight bytes
 * with the length of the header, the header as JSON, then the elements.
 */
export interface Expected {
  readonly shape: readonly number[];
  readonly dtype: "f32" | "f64" | "i32";
  readonly values: Float32Array | Float64Array | Int32Array;
}

export interface Fixture<Case> {
  readonly cases: readonly Case[];
  readonly tensors: ReadonlyMap<string, Expected>;
  /** The tensor with this name. @throws if it is missing */
  get(name: string): Expected;
}

interface Entry {
  readonly dtype: "F32" | "F64" | "I32";
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

export function readFixture<Case>(name: string): Fixture<Case> {
  const { buffer } = Deno.readFileSync(new URL(`fixtures/${name}.safetensors`, import.meta.url));
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = new Map<string, Expected>();
  for (const [key, { dtype, shape, data_offsets: [begin, end] }] of Object.entries<Entry>(entries)) {
    const bytes = buffer.slice(8 + length + begin, 8 + length + end);
    const values = dtype === "F64"
      ? new Float64Array(bytes)
      : dtype === "F32"
      ? new Float32Array(bytes)
      : new Int32Array(bytes);
    tensors.set(key, { shape, dtype: dtype.toLowerCase() as Expected["dtype"], values });
  }
  const get = (key: string) => {
    const tensor = tensors.get(key);
    if (!tensor) throw new Error(`${name} holds no ${key}`);
    return tensor;
  };
  return { cases: JSON.parse(__metadata__.cases), tensors, get };
}
