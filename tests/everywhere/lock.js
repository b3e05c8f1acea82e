/**
 * Runs in Node.js: opens a run in the folder, or prints why it cannot. Holds the folder until it is killed, unless
 * `once` is given. It touches the lock file more often than usual.
 */
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
