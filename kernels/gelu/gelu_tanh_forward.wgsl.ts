export default /* wgsl */ `// GELU in the approximation with which GPT-2 was trained (Hendrycks and Gimpel 2016, arXiv:1606.08415):
//
//   y = ½ x (1 + tanh u) = max(x, 0) − a · e / (1 + e),  u = √(2/π) (x + 0.044715 x³),  a = |x|,  e = exp(−2 |u|)
//
// WGSL's tanh may be off by 1e-5, and is not defined for large arguments on all hardware; exp is good.
//
// A workgroup owns 1024 elements, of which an invocation takes every 256th.

struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;        // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;  // (n)

const LANES = 256u;
const PER_LANE = 4u;
const SQRT_2_OVER_PI = 0.7978845608;
const CUBIC = 0.044715;
/// Beyond it, what is subtracted from max(x, 0) is no normal float.
const FAR = 9.9;

/// a · e / (1 + e) for a ≥ 0.
fn tail(magnitude: f32) -> f32 {
  let a = min(magnitude, FAR);
  let e = exp(-2.0 * SQRT_2_OVER_PI * (a + CUBIC * a * a * a));
  return a * e / (1.0 + e);
}

@compute @workgroup_size(LANES)
fn gelu_tanh_forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * LANES * PER_LANE + lane;
  for (var k = 0u; k < PER_LANE; k++) {
    let i = first + k * LANES;
    if (i >= params.n) { return; }
    y[i] = max(x[i], 0.0) - tail(abs(x[i]));
  }
}
`;
