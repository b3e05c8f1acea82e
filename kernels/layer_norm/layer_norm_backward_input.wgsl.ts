export default /* wgsl */ `// The gradient of layer normalisation's input, with x̂ = (x − mean) · rstd and g = dy · weight:
//
//   dx += rstd · (g − Σ g / C − x̂ · Σ (g · x̂) / C)
//
// A workgroup owns a row. Each of its 64 invocations adds up every 64th element of both sums, and their results are
// combined pairwise.

struct Params { rows: u32, C: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;        // (rows, C)
@group(0) @binding(2) var<storage, read> x: array<f32>;         // (rows, C)
@group(0) @binding(3) var<storage, read> weight: array<f32>;    // (C)
@group(0) @binding(4) var<storage, read> mean: array<f32>;      // (rows)
@group(0) @binding(5) var<storage, read> rstd: array<f32>;      // (rows)
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;  // (rows, C)
override fresh_dx: bool = false; // dx holds garbage: write instead of adding

const LANES = 64u;
var<workgroup> shared_sums: array<vec2f, LANES>;

@compute @workgroup_size(LANES)
fn layer_norm_backward_input(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  let begin = row * params.C;
  let center = mean[row];
  let scale = rstd[row];

  var sums = vec2f(0.0); // Σ g and Σ (g · x̂)
  for (var c = lane; c < params.C; c += LANES) {
    let g = dy[begin + c] * weight[c];
    sums += vec2f(g, g * (x[begin + c] - center) * scale);
  }
  shared_sums[lane] = sums;
  workgroupBarrier();
  for (var width = LANES / 2u; width > 0u; width /= 2u) {
    if (lane < width) { shared_sums[lane] += shared_sums[lane + width]; }
    workgroupBarrier();
  }
  let means = shared_sums[0] / f32(params.C);

  for (var c = lane; c < params.C; c += LANES) {
    let i = begin + c;
    let normal = (x[i] - center) * scale;
    let value = scale * (dy[i] * weight[c] - means.x - normal * means.y);
    dx[i] = select(dx[i], 0.0, fresh_dx) + value;
  }
}
`;
