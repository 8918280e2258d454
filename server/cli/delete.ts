import type { Command } from 'commander';
import { contextOf } from './context.js';

/** Deletes what is at `path` of the API, and says so: `said`, or with `--json` what the server answered. */
export async function deleteAt(command: Command, path: string, said: string): Promise<void> {
  const { terminal, request } = contextOf(command);
  const answer = await request('DELETE', path);
  if (terminal.json) terminal.printJson(answer);
  else terminal.print(`${said}\n`);
}
