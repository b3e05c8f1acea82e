/**
 * Softmax and its logarithm along one axis of (outer, axis, inner), with the greatest element subtracted first:
 *
 *     y = exp(x − max) / Σ exp(x − max),    log y = x − max − log Σ exp(x − max)
 *
 * An element of −∞ gets probability 0. If all elements are −∞, the result is NaN, as in PyTorch.
 */
import { f32, type FloatArray, kernel, withLines } from "../../src/kernel.ts";
import { lines } from "../reduce/kernel.ts";
import backwardSource from "./softmax_backward.wgsl.ts";
import forwardSource from "./softmax_forward.wgsl.ts";
import * as wasm from "./wasm.ts";

const three = f32("outer", "axis", "inner");

type Sizes = Record<"outer" | "axis" | "inner", number>;

/** A workgroup owns one line along the axis. */
const workgroups = ({ outer, inner }: Sizes) => outer * inner;

/** The greatest element of a line, and Σ exp(x − max). */
function maxAndSum(x: FloatArray, axis: number, at: (i: number) => number): [max: number, sum: number] {
  let max = -Infinity, sum = 0;
  for (let i = 0; i < axis; i++) max = Math.max(max, x[at(i)]);
  for (let i = 0; i < axis; i++) sum += Math.exp(x[at(i)] - max);
  return [max, sum];
}

export const softmaxForward = kernel({
  name: "softmax_forward",
  reads: { x: three },
  writes: { y: three },

  reference({ x, y }, sizes) {
    lines(sizes, (at) => {
      const [max, sum] = maxAndSum(x, sizes.axis, at);
      for (let i = 0; i < sizes.axis; i++) y[at(i)] = Math.exp(x[at(i)] - max) / sum;
    });
  },
  cpu: wasm.softmaxForward,
  gpu: { source: forwardSource, entry: "softmax_forward", workgroups },
});

/** dx += y · (dy − Σ dy · y). */
export const softmaxBackward = kernel({
  name: "softmax_backward",
  reads: { dy: three, y: three },
  updates: { dx: three },

  reference({ dy, y, dx }, sizes) {
    lines(sizes, (at) => {
      let sum = 0;
      for (let i = 0; i < sizes.axis; i++) sum += dy[at(i)] * y[at(i)];
      for (let i = 0; i < sizes.axis; i++) dx[at(i)] += y[at(i)] * (dy[at(i)] - sum);
    });
  },
  cpu: wasm.softmaxBackward,
  gpu: { source: backwardSource, entry: "softmax_backward", workgroups },
});

export const logSoftmaxForward = kernel({
  name: "log_softmax_forward",
  reads: { x: three },
  writes: { y: three },

  reference({ x, y }, sizes) {
    lines(sizes, (at) => {
      const [max, sum] = maxAndSum(x, sizes.axis, at);
      for (let i = 0; i < sizes.axis; i++) y[at(i)] = x[at(i)] - max - Math.log(sum);
    });
  },
  cpu: wasm.logSoftmaxForward,
  gpu: {
    get source() {
      return withLines(forwardSource, {
        result: "fn result(difference: f32, sum: f32) -> f32 { return difference - log(sum); }",
      });
    },
    entry: "softmax_forward",
    workgroups,
  },
});

/** dx += dy − exp(y) · Σ dy. */
export const logSoftmaxBackward = kernel({
  name: "log_softmax_backward",
  reads: { dy: three, y: three },
  updates: { dx: three },

  reference({ dy, y, dx }, sizes) {
    lines(sizes, (at) => {
      let sum = 0;
      for (let i = 0; i < sizes.axis; i++) sum += dy[at(i)];
      for (let i = 0; i < sizes.axis; i++) dx[at(i)] += dy[at(i)] - Math.exp(y[at(i)]) * sum;
    });
  },
  cpu: wasm.logSoftmaxBackward,
  gpu: {
    get source() {
      return withLines(backwardSource, {
        term: "fn term(dy: f32, y: f32) -> f32 { return dy; }",
        added: "fn added(dx: f32, dy: f32, y: f32, sum: f32) -> f32 { return dx + dy - exp(y) * sum; }",
      });
    },
    entry: "softmax_backward",
    workgroups,
  },
});
