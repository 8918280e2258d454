/** `quorate` without a server in it: `serve` prints what it was given. */
import { runCli } from '../program.js';

process.exitCode = await runCli(process.argv.slice(2), {
  serve: async (given) => {
    process.stdout.write(`${JSON.stringify(given)}\n`);
    return 3;
  },
});
