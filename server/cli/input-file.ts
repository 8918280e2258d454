import { readFile } from 'node:fs/promises';
import { CliError } from './cli-error.js';
import type { Terminal } from './terminal.js';

/** Bytes of a file that a command was given. */
export async function readInputFile(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
    const why = code === 'ENOENT' ? 'there is no such file' : code;
    throw new CliError(`cannot read ${file}: ${why}`, { cause: error });
  }
}

/** Text of a file that a command was given; of stdin for `-`. */
export async function readInputText(file: string, terminal: Terminal): Promise<string> {
  return file === '-' ? await terminal.readInput() : (await readInputFile(file)).toString('utf8');
}
