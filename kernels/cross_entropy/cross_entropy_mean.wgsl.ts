export default /* wgsl */ `// The mean loss: the sum of the rows' parts over the number of rows whose target is not to be ignored. Where that is 0,
// the quotient 0 / 0 is NaN, as in PyTorch.
//
// One workgroup does it all: lane l takes the rows l, l + 256, …, and the lanes' sums are added by halves, so additions
// have the same order each time.

struct Params { rows: u32, V: u32, ignore: i32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(3) var<storage, read_write> loss: array<f32>; // one number
@group(0) @binding(4) var<storage, read_write> count: array<f32>; // one number: of rows that count
@group(0) @binding(6) var<storage, read_write> parts: array<f32>; // the workspace: (rows)

const LANES = 256u;
var<workgroup> sums: array<f32, LANES>;
var<workgroup> counts: array<u32, LANES>;

@compute @workgroup_size(LANES)
fn cross_entropy_mean(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  if (group.x > 0u) { return; }
  var sum = 0.0;
  var counted = 0u;
  for (var row = lane; row < params.rows; row += LANES) {
    sum += parts[row];
    counted += select(1u, 0u, targets[row] == params.ignore);
  }
  sums[lane] = sum;
  counts[lane] = counted;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
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
