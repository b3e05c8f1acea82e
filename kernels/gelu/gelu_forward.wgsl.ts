export default /* wgsl */ `// GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415), with a = |x|. The exact GELU:
//
//   y = x · Φ(x) = max(x, 0) − a · Q(a),  Q(a) = 1 − Φ(a) = ½ (1 − erf(a / √2)),
//
// and the tanh approximation with which GPT-2 was trained:
//
//   y = ½ x (1 + tanh u) = max(x, 0) − a · e / (1 + e),  u = √(2/π) (x + 0.044715 x³),  e = exp(−2 |u|)
//
// WGSL has no erf. Q(a) is computed as p(a)⁻⁴, with a minimax polynomial p of degree 10: |a · p(a)⁻⁴ − a · Q(a)| <
// 5e-8. The term subtracted from max(x, 0) is small, and so is its error, even for x at which x · Φ(x) itself would
// cancel. WGSL's tanh may be off by 1e-5, and is not defined for large arguments on all hardware; exp is precise.
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

// The term subtracted from max(x, 0), for a ≥ 0. kernel.ts replaces this line for the approximation.
fn tail(a: f32) -> f32 { return erf_tail(a); }

// a · Q(a). Beyond 12.9 it is below the least normal float.
fn erf_tail(magnitude: f32) -> f32 {
  let a = min(magnitude, 12.9);
  var p = 7.1607087e-6;
  p = p * a - 8.3097075e-5;
  p = p * a + 4.8465305e-4;
  p = p * a - 1.4626834e-3;
  p = p * a + 3.3147177e-3;
  p = p * a - 2.072313e-3;
  p = p * a + 9.400107e-3;
  p = p * a + 0.029848156;
  p = p * a + 0.11866888;
  p = p * a + 0.23716392;
  p = p * a + 1.1892092;
  let squared = p * p;
  return a / (squared * squared);
}

// a · e / (1 + e). Beyond 9.9 it is below the least normal float.
fn tanh_tail(magnitude: f32) -> f32 {
  let a = min(magnitude, 9.9);
  let e = exp(-2.0 * SQRT_2_OVER_PI * (a + CUBIC * a * a * a));
  return a * e / (1.0 + e);
}

@compute @workgroup_size(LANES)
fn gelu_forward(
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
