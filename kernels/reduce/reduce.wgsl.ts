export default /* wgsl */ `// A reduction along one axis, in two passes. The axis is cut into chunks, whose results are
// stored in the workspace and then combined, so the order of the operations depends on sizes alone. As it stands, this
// text computes sums: y += Σ x / divisor. For the maximum, kernel.ts replaces the lines Params, 'empty', 'combine' and
// 'finish'.
//
// reduce_chunks: a workgroup of 256 owns one chunk of 1 to 64 neighbouring lines. If k invocations share a line, each
// combines every k-th element of the chunk, at most 64 elements, and the k results are combined by halves.
// reduce_rest: an invocation owns one element of y, and combines the chunks in order.

struct Params { outer: u32, axis: u32, inner: u32, divisor: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (outer, axis, inner)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (outer, inner)
@group(0) @binding(3) var<storage, read_write> workspace: array<f32>; // (outer, chunks, inner)

override fresh_y: bool = false; // y holds garbage: write instead of adding

fn empty(x: f32) -> f32 { return 0.0; } // the result of zero elements
fn combine(a: f32, b: f32) -> f32 { return a + b; }
fn finish(y: f32, result: f32) -> f32 { return select(y, 0.0, fresh_y) + result / params.divisor; }

// Tests the bits, because compilers may assume that all numbers are finite.
fn is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

var<workgroup> partial: array<f32, 256>;

fn power_of_two_from(n: u32) -> u32 {
  return 1u << (32u - countLeadingZeros(n - 1u));
}
// Lines per workgroup: as many as are next to each other in memory, more if lines are short.
fn lines() -> u32 {
  return clamp(max(power_of_two_from(params.inner), 256u / power_of_two_from(params.axis)), 1u, 64u);
}
// Elements of a chunk: 64 for each invocation that shares the line.
fn chunk_length() -> u32 {
  return 64u * 256u / lines();
}
fn chunks() -> u32 {
  return (params.axis + chunk_length() - 1u) / chunk_length();
}

@compute @workgroup_size(256)
fn reduce_chunks(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let results = params.outer * params.inner;
  let index = group.x + group.y * groups.x;
  if (index >= chunks() * ((results + lines() - 1u) / lines())) { return; }
  let chunk = index % chunks();

  // Neighbouring invocations read neighbouring elements: of one line, or of neighbouring lines.
  let sharing = 256u / lines();
  let part = select(lane / lines(), lane % sharing, params.inner == 1u);
  let line = select(lane % lines(), lane / sharing, params.inner == 1u);
  let at = index / chunks() * lines() + line;
  let o = min(at, results - 1u) / params.inner;
  let first = o * params.axis * params.inner + at % params.inner;

  let end = min((chunk + 1u) * chunk_length(), params.axis);
  var result = empty(x[first]);
  for (var k = chunk * chunk_length() + part; k < end; k += sharing) {
    result = combine(result, x[first + k * params.inner]);
  }
  partial[part * lines() + line] = result;
  workgroupBarrier();
  for (var half = 128u; half >= lines(); half /= 2u) {
    if (lane < half) { partial[lane] = combine(partial[lane], partial[lane + half]); }
    workgroupBarrier();
  }
  let owned = index / chunks() * lines() + lane;
  if (lane < lines() && owned < results) {
    workspace[(owned / params.inner * chunks() + chunk) * params.inner + owned % params.inner] = partial[lane];
  }
}

@compute @workgroup_size(64)
fn reduce_rest(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let at = (group.x + group.y * groups.x) * 64u + lane;
  if (at >= params.outer * params.inner) { return; }
  let first = at / params.inner * chunks() * params.inner + at % params.inner;
  var result = workspace[first];
  for (var chunk = 1u; chunk < chunks(); chunk++) {
    result = combine(result, workspace[first + chunk * params.inner]);
  }
  y[at] = finish(y[at], result);
}
`;
