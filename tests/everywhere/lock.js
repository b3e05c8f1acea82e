/** Runs in Node: begins a run in the folder and holds it, unless `once` follows; or prints why not. Its heart beats faster. */
const { setInterval } = globalThis;
globalThis.setInterval = (beat) => setInterval(beat, 50);
const { RunFolder } = await import("@nanogpt/ts/checkpoint");

try {
  const run = await RunFolder.create(process.argv[2], { flags: {}, model: {}, vocabulary: {} });
  console.log("held");
  if (process.argv[3] === "once") run[Symbol.dispose]();
  else setInterval(() => run, 1000);
} catch (error) {
  console.log(error.message);
}
