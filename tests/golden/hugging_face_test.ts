/** GPT-2 folders that transformers saved: logits, loss and every gradient of their models. */
import { loadHuggingFace } from "../../src/checkpoint/hugging_face.ts";
import { assertClose, assertShape, devices, type TestDevice } from "../testing.ts";
import { readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";

interface FolderCase {
  readonly name: string;
  readonly tied: boolean;
}

const folders = new URL("hugging_face", import.meta.url).pathname;
const fixture = readFixture<FolderCase>("../hugging_face/expected");
const CONV1D = /\.(c_attn|c_fc|c_proj)\.weight$/;

/** Transposes a matrix of (rows, columns). */
function turned(values: ArrayLike<number>, [rows, columns]: readonly number[]): number[] {
  return Array.from({ length: rows * columns }, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]);
}

async function checkFolder({ device }: TestDevice, number: number) {
  const { name, tied } = fixture.cases[number], expected = (key: string) => fixture.get(`${number}.${key}`);
  const before = device.memory();
  const model = await loadHuggingFace(`${folders}/${name}`, { device });
  const tensor = (key: string) => device.tensor(expected(key).values, expected(key).shape, { dtype: "i32" });
  const evaluate = () => {
    using _ = device.scope();
    const { logits, loss } = model.forward(tensor("tokens"), tensor("targets"));
    loss.backward();
    assertShape(logits, expected("logits").shape, `${name}: logits`);
    return { logits: logits.data(), loss: loss.data() };
  };
  const results = evaluate();
  assertClose(await results.logits, expected("logits").values, limitOf(device, "logits"), `${name}: logits`);
  assertClose(await results.loss, expected("loss").values, limitOf(device, "loss"), `${name}: loss`);
  const parameters = [...model.namedParameters()],
    gradients = fixture.tensors.keys().filter((key) => key.startsWith(`${number}.grad.`));
  if (parameters.length !== gradients.toArray().length) throw new Error(`${name}: ${parameters.length} parameters`);
  if (parameters.some(([key]) => key === "lm_head.weight") === tied) {
    throw new Error(`${name}: expected a tied head if the fixture's is tied, otherwise an untied one`);
  }
  for (const [key, parameter] of parameters) {
    const { values, shape } = expected(`grad.${key}`), ours = CONV1D.test(key) ? turned(values, shape) : values;
    const limit = limitOf(device, "gradients", ours);
    assertClose(await parameter.grad!.data(), ours, limit, `${name}: gradient of ${key}`);
  }
  model.dispose();
  const { tensors, bytes } = device.memory();
  if (tensors !== before.tensors || bytes !== before.bytes) throw new Error(`${name}: ${tensors} tensors are left`);
}

for (const on of await devices()) {
  for (const [number, { name }] of fixture.cases.entries()) {
    Deno.test(`Hugging Face folder ${name} (${on.name})`, () => checkFolder(on, number));
  }
}
