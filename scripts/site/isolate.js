/**
 * Gives the playground threads on a web server that sends no headers, as most hosts of static files. A page may share memory
 * between threads only if two headers came with it, and a service worker can add them.
 *
 * The page runs this file to install the worker, and the worker runs it too. Without service workers, the page has one thread.
 */
if ("document" in globalThis) {
  // Without a controller this is the first visit: the page is loaded again as soon as the worker answers for it.
  if (!crossOriginIsolated && navigator.serviceWorker && !navigator.serviceWorker.controller) {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload());
    navigator.serviceWorker.register("isolate.js").catch((error) => console.info(`One thread: ${error.message}`));
  }
} else {
  addEventListener("install", () => globalThis.skipWaiting());
  addEventListener("activate", (event) => event.waitUntil(globalThis.clients.claim()));
  addEventListener("fetch", (event) => {
    if (new URL(event.request.url).origin === location.origin) event.respondWith(isolated(event.request));
  });
}

/** The server's response with the two headers. */
async function isolated(request) {
  const response = await fetch(request), headers = new Headers(response.headers);
  headers.set("cross-origin-opener-policy", "same-origin");
  headers.set("cross-origin-embedder-policy", "require-corp");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
