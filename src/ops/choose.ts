import { choose as chooseKernel } from "../../kernels/choose/kernel.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/** What rows have besides their logits; kernels/choose/record.ts makes most of it. */
export interface ChooseOperands {
  /** f32 (any number, V), above 0, drawn from the exponential distribution (`RandomGenerator.exponential`). */
  readonly noise: Tensor;
  /** f32 (R, fields): what each row asks for (`recordOf`). */
  readonly records: Tensor;
  /**
   * i32 (R, 4): seed, position, `BY_NOISE`, `BY_STREAM` or a token that is given, and the row of the noise, modulo their number.
   * The position goes on by 1, the row of the noise by R.
   */
  readonly state: Tensor;
  /** f32 (any number, 2, V): bias and what has been seen (`tablesOf`), to which what is chosen is added. */
  readonly tables?: Tensor;
  /** Of how many tokens, the chosen one and the likeliest, to give log-probabilities where a row asks for them. Default 0. */
  readonly likely?: number;
}

/**
 * Chooses an entry of the vocabulary for each row, as it asks: see kernels/choose/kernel.ts. There is no derivative.
 *
 * @param logits f32 (R, V)
 * @returns ids i32 (R): `DAMAGED` for a row with NaN, or whose maximum is infinite, `BANNED` where bias and penalties leave
 * none; likely f32 (R, likely, 2): pairs of an id and its log-probability, for as many as the row asks for
 * @throws {ShapeError} when an operand has not its shape
 */
export function choose(logits: Tensor, { likely: count = 0, ...operands }: ChooseOperands) {
  const { device, shape: [R] } = logits;
  using scope = device.scope("choose");
  const likely = count > 0 ? device.empty([R, count, 2]) : undefined;
  const { ids } = launch(chooseKernel, { logits, ...operands, likely });
  scope.keep(ids);
  return { ids, likely: likely && scope.keep(likely) };
}
