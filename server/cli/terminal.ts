import { CliError } from './cli-error.js';

/** A public key file is at most some kilobytes. */
const maxInputBytes = 64 * 1024;

/** What a command talks to besides the server. */
export interface Terminal {
  /** Machine-readable output was asked for. */
  readonly json: boolean;
  /** The result of the command, and nothing else, goes to stdout. */
  print(text: string): void;
  printJson(value: unknown): void;
  /** Advice on stderr, for people: not with `--json`. */
  hint(text: string): void;
  /** Asks on the terminal; undefined when there is none to ask on. */
  confirm(question: string): Promise<boolean | undefined>;
  /** All of stdin. Bounded at 64 KiB. */
  readInput(): Promise<string>;
}

export function createTerminal(json: boolean): Terminal {
  const { stdin, stdout, stderr } = process;
  return {
    json,
    print: (text) => void stdout.write(text),
    printJson: (value) =>
      void stdout.write(`${JSON.stringify(value, undefined, stdout.isTTY ? 2 : 0)}\n`),
    hint: (text) => {
      if (!json) stderr.write(`${text}\n`);
    },
    confirm: async (question) => {
      if (!stdin.isTTY || !stderr.isTTY) return undefined;
      const { createInterface } = await import('node:readline/promises');
      const lines = createInterface({ input: stdin, output: stderr });
      const closed = new Promise<string>((resolve) => {
        lines.once('close', () => resolve(''));
      });
      try {
        const answer = await Promise.race([lines.question(`${question} [y/N] `), closed]);
        return /^y(es)?$/i.test(answer.trim());
      } finally {
        lines.close();
      }
    },
    readInput: async () => {
      const chunks: Buffer[] = [];
      let sizeBytes = 0;
      for await (const chunk of stdin) {
        const bytes = Buffer.from(chunk);
        sizeBytes += bytes.length;
        if (sizeBytes > maxInputBytes) throw new CliError('stdin holds more than a public key');
        chunks.push(bytes);
      }
      return Buffer.concat(chunks).toString('utf8');
    },
  };
}
