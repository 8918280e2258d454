#!/usr/bin/env node
// Threads for file work (fsync, mostly): Node's 4 would queue pushes behind each other's disk. Node reads it when the
// first of them starts; Node 20's module loader has started it by now, so there it is set from outside (docs/configuration.md).
process.env['UV_THREADPOOL_SIZE'] ??= '16';

/** For what a server that has stopped still has open. */
const lingerMs = 3_000;

const { runCli } = await import('./cli/program.js');

process.exitCode = await runCli(process.argv.slice(2), {
  // Loaded only when it is wanted: every other command is a small client.
  serve: async (given) => {
    const { tuneEngine } = await import('./engine-settings.js');
    // Before the server is loaded: it saves a tenth of the CPU of a start.
    tuneEngine();
    const { serve } = await import('./serve.js');
    const status = await serve(given);
    // A connection to a host that is cut off can take minutes to be given up; nothing waits for it any more.
    setTimeout(() => {
      const open = process.getActiveResourcesInfo().join(' ');
      process.stderr.write(`quorate: stopped, and ended with something still open: ${open}\n`);
      process.exit(status);
    }, lingerMs).unref();
    return status;
  },
});
