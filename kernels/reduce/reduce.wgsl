// A reduction along one axis, in two passes: the axis is cut into chunks, each of which leaves its result in the workspace, and
// then the chunks' results are put together. sum.wgsl and max.wgsl are appended to say what is reduced: they have Params, `empty`,
// `combine` and `finish`.
//
// reduce_chunks: a workgroup of 256 owns one chunk of up to 64 neighbouring lines (of one, where inner is 1). The invocations that
// share a line take every so many-th element, 64 at most, and what they have is combined by halves.
// reduce_rest: an invocation owns one element of y, and takes the chunks in order.
// So the order depends on sizes alone.

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (outer, axis, inner)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (outer, inner)
@group(0) @binding(3) var<storage, read_write> workspace: array<f32>; // (outer, chunks, inner)

var<workgroup> partial: array<f32, 256>;

// How many lines a workgroup takes: the power of two from inner on, at most 64.
fn lines() -> u32 {
  return min(1u << (32u - countLeadingZeros(params.inner - 1u)), 64u);
}
// Elements of a chunk: 64 for each invocation of a line.
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
  let across = (params.inner + lines() - 1u) / lines();
  let index = group.x + group.y * groups.x;
  if (index >= params.outer * chunks() * across) { return; }
  let chunk = index / across % chunks();
  let o = index / across / chunks();
  let i = index % across * lines() + lane % lines();
  let line = o * params.axis * params.inner + min(i, params.inner - 1u);

  let end = min((chunk + 1u) * chunk_length(), params.axis);
  var result = empty(x[line]);
  for (var k = chunk * chunk_length() + lane / lines(); k < end; k += 256u / lines()) {
    result = combine(result, x[line + k * params.inner]);
  }
  partial[lane] = result;
  workgroupBarrier();
  for (var half = 128u; half >= lines(); half /= 2u) {
    if (lane < half) { partial[lane] = combine(partial[lane], partial[lane + half]); }
    workgroupBarrier();
  }
  if (lane < lines() && i < params.inner) {
    workspace[(o * chunks() + chunk) * params.inner + i] = partial[lane];
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
