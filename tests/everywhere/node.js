/** The program of the Node.js project: prints the results as JSON. */
import { everything } from "./files.js";
import { train } from "./losses.js";

console.log(JSON.stringify(await everything(await train(20, 2), process.argv[2])));
