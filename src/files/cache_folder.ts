/** `nanogpt-ts` in the user's cache folder: `$XDG_CACHE_HOME`, `~/.cache`, or `%LOCALAPPDATA%` on Windows. */
export function defaultCacheFolder(): string {
  const windows = Deno.build.os === "windows";
  const base = windows
    ? Deno.env.get("LOCALAPPDATA")
    : Deno.env.get("XDG_CACHE_HOME") || (Deno.env.get("HOME") && `${Deno.env.get("HOME")}/.cache`);
  return base ? `${base}/nanogpt-ts` : ".cache/nanogpt-ts";
}
