/**
 * Makes threads possible in the playground if the web server sends no headers of its own, as most hosts of static
 * files. A page can share memory between threads only if its response has two headers. This service worker adds them.
 *
 * The page runs this file to install the worker, and the worker runs it, too. Without service workers, the page has one
 * thread.
 */
if ("document" in globalThis) {
  // On the first visit, the page has no controller. It is loaded again as soon as the worker controls it.
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
