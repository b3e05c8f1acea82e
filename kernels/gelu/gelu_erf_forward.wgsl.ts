export default /* wgsl */ `// GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415), the exact one:
//
//   y = x · Φ(x) = max(x, 0) − a · Q(a),  a = |x|,  Q(a) = 1 − Φ(a) = ½ (1 − erf(a / √2))
//
// WGSL has no erf. Q(a) is p(a)⁻⁴, p a minimax polynomial of degree 10: |a · p(a)⁻⁴ − a · Q(a)| < 5e-8. What is
// computed is small, and its error with it, also where x · Φ(x) as it stands would cancel.
//
// A workgroup owns 1024 elements, of which an invocation takes every 256th.

struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;        // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;  // (n)

const LANES = 256u;
const PER_LANE = 4u;
/// Beyond it, what is subtracted from max(x, 0) is no normal float.
const FAR = 12.9;

/// a · Q(a) for a ≥ 0.
fn tail(magnitude: f32) -> f32 {
  let a = min(magnitude, FAR);
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

@compute @workgroup_size(LANES)
fn gelu_erf_forward(
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
