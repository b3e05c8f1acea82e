// The first of two passes of a reduction along one axis: chunks of the axis, side by side, to the workspace. kernel.ts appends
// what is reduced: Params, identity(x) and combine(a, b).
//
// A workgroup owns up to 64 neighbouring lines along the axis (one where inner is 1) and one chunk of it. So many lanes as are
// left share a line: lane l takes elements l, l + lanes, …, at most 64. What the lanes have is then put together by halves, so
// the order is the same each time.

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (outer, axis, inner)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (outer, inner)
@group(0) @binding(3) var<storage, read_write> workspace: array<f32>; // (outer, chunks, inner)
