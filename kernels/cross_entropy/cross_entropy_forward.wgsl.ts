export default /* wgsl */ `// Cross-entropy of each row of logits: lse = log Σ exp(logits), and in the workspace the row's part of the loss,
// lse − logits[target]; 0 where the target is to be ignored. cross_entropy_mean.wgsl.ts adds the parts.
//
// A workgroup owns one row: lane l takes its logits l, l + 64, …, and the lanes' results are put together by halves, so
// additions have the same order each time. A target that is no class counts as the last.

struct Params { rows: u32, V: u32, ignore: i32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (rows, V)
@group(0) @binding(2) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(5) var<storage, read_write> lse: array<f32>; // (rows)
@group(0) @binding(6) var<storage, read_write> parts: array<f32>; // the workspace: (rows)

const LANES = 64u;
var<workgroup> partial: array<f32, LANES>;
const LOWEST = -3.4028234e38; // the maximum of no element

fn greatest_of_all(value: f32, lane: u32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
    workgroupBarrier();
  }
  let greatest = partial[0];
  workgroupBarrier(); // nobody writes the next value before all have read this one
  return greatest;
}

fn sum_of_all(value: f32, lane: u32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  return partial[0];
}

@compute @workgroup_size(LANES)
fn cross_entropy_forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  let first = row * params.V;
  var greatest = LOWEST;
  for (var c = lane; c < params.V; c += LANES) { greatest = max(greatest, logits[first + c]); }
  greatest = greatest_of_all(greatest, lane);
  var sum = 0.0;
  for (var c = lane; c < params.V; c += LANES) { sum += exp(logits[first + c] - greatest); }
  sum = sum_of_all(sum, lane);
  if (lane > 0u) { return; }
  lse[row] = greatest + log(sum);
  let target_class = min(bitcast<u32>(targets[row]), params.V - 1u);
  parts[row] = select(greatest - logits[first + target_class] + log(sum), 0.0, targets[row] == params.ignore);
}
`;
