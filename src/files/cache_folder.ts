import { system } from "./system.ts";

/** `nanogpt-ts` in the user's cache folder: `$XDG_CACHE_HOME`, `~/.cache`, or `%LOCALAPPDATA%` on Windows. */
export function defaultCacheFolder(): string {
  const windows = system.build.os === "windows";
  const base = windows
    ? system.env.get("LOCALAPPDATA")
    : system.env.get("XDG_CACHE_HOME") || (system.env.get("HOME") && `${system.env.get("HOME")}/.cache`);
  return base ? `${base}/nanogpt-ts` : ".cache/nanogpt-ts";
}
