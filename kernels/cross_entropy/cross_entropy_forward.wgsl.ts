export default /* wgsl */ `// Mean cross-entropy of rows of logits, in two passes.
//
// cross_entropy_forward: lse = log Σ exp(logits) of each row, and the row's loss lse − logits[target], stored in the
// workspace; 0 if the target is 'ignore'. A workgroup owns one row: lane l takes its logits l, l + 64, …, and the
// lanes' results are combined by halves, so additions always have the same order. A target that is not a valid class
// counts as the last class.
//
// cross_entropy_mean: the sum of the losses, divided by the number of rows whose target is not 'ignore'. If no row
// counts, the result is 0 / 0 = NaN, as in PyTorch. One workgroup of 256 lanes computes it in the same way.

struct Params { rows: u32, V: u32, ignore: i32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (rows, V)
@group(0) @binding(2) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(3) var<storage, read_write> loss: array<f32>; // one number
@group(0) @binding(4) var<storage, read_write> count: array<f32>; // one number: how many rows count
@group(0) @binding(5) var<storage, read_write> lse: array<f32>; // (rows)
@group(0) @binding(6) var<storage, read_write> parts: array<f32>; // the workspace: (rows)

const LANES = 64u;
var<workgroup> partial: array<f32, LANES>;
const LOWEST = -3.4028234e38; // the maximum of zero elements
const ROWS = 256u; // rows that the second pass takes at a time
var<workgroup> sums: array<f32, ROWS>;
var<workgroup> counts: array<u32, ROWS>;

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

@compute @workgroup_size(ROWS)
fn cross_entropy_mean(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  if (group.x > 0u) { return; }
  var sum = 0.0;
  var counted = 0u;
  for (var row = lane; row < params.rows; row += ROWS) {
    sum += parts[row];
    counted += select(1u, 0u, targets[row] == params.ignore);
  }
  sums[lane] = sum;
  counts[lane] = counted;
  workgroupBarrier();
  for (var half = ROWS / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      sums[lane] += sums[lane + half];
      counts[lane] += counts[lane + half];
    }
    workgroupBarrier();
  }
  if (lane > 0u) { return; }
  loss[0] = sums[0] / f32(counts[0]);
  count[0] = f32(counts[0]);
}
`;
