export default /* wgsl */ `// Softmax along one axis, y = exp(x − max) / Σ exp(x − max), or its logarithm, y = x − max − log Σ exp(x − max).
//
// A workgroup owns one line along the axis: lane l takes its elements l, l + 64, …, and the lanes' results are combined
// by halves, so additions always have the same order.

struct Params { outer: u32, axis: u32, inner: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (outer, axis, inner)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (outer, axis, inner)

const LANES = 64u;
var<workgroup> partial: array<f32, LANES>;
const LOWEST = -3.4028234e38; // the maximum of zero elements

fn greatest_of_all(value: f32, lane: u32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
    workgroupBarrier();
  }
  let greatest = partial[0];
  workgroupBarrier(); // all lanes have read this value before the next is written
  return greatest;
}

fn sum_of_all(value: f32, lane: u32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  let sum = partial[0];
  workgroupBarrier(); // all lanes have read this value before the next is written
  return sum;
}

// kernel.ts replaces this line for the logarithm.
fn result(difference: f32, sum: f32) -> f32 { return exp(difference) / sum; }

@compute @workgroup_size(LANES)
fn softmax_forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let line = group.x + group.y * groups.x;
  if (line >= params.outer * params.inner) { return; }
  let first = line / params.inner * params.axis * params.inner + line % params.inner;
  var greatest = LOWEST;
  for (var i = lane; i < params.axis; i += LANES) {
    greatest = max(greatest, x[first + i * params.inner]);
  }
  greatest = greatest_of_all(greatest, lane);
  var sum = 0.0;
  for (var i = lane; i < params.axis; i += LANES) {
    sum += exp(x[first + i * params.inner] - greatest);
  }
  sum = sum_of_all(sum, lane);
  for (var i = lane; i < params.axis; i += LANES) {
    let at = first + i * params.inner;
    y[at] = result(x[at] - greatest, sum);
  }
}
`;
