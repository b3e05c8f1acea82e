export default /* wgsl */ `// The gradient of the mean cross-entropy: dlogits += (exp(logits − lse) − [class is the
// target]) · dloss / count. Rows whose target is 'ignore' get no gradient. A workgroup owns one row, an invocation its
// classes l, l + 64, …

struct Params { rows: u32, V: u32, ignore: i32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dloss: array<f32>; // one number
@group(0) @binding(2) var<storage, read> logits: array<f32>; // (rows, V)
@group(0) @binding(3) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(4) var<storage, read> lse: array<f32>; // (rows)
@group(0) @binding(5) var<storage, read> count: array<f32>; // one number: how many rows count
@group(0) @binding(6) var<storage, read_write> dlogits: array<f32>; // (rows, V)
override fresh_dlogits: bool = false; // dlogits holds garbage: write instead of adding

const LANES = 64u;

@compute @workgroup_size(LANES)
fn cross_entropy_backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  let first = row * params.V;
  let ignored = targets[row] == params.ignore;
  let target_class = min(bitcast<u32>(targets[row]), params.V - 1u);
  let share = dloss[0] / count[0];
  for (var c = lane; c < params.V; c += LANES) {
    let gradient = (exp(logits[first + c] - lse[row]) - select(0.0, 1.0, c == target_class)) * share;
    dlogits[first + c] = select(dlogits[first + c], 0.0, fresh_dlogits) + select(gradient, 0.0, ignored);
  }
}
`;
