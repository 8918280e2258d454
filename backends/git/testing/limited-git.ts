import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

/** A `git` before the real one in PATH, whose commands can be run with little memory or few files. */
export interface LimitedGit {
  /**
   * What a shell runs before that command of git, in the same process: `ulimit -v 30000`. Without: as it is. `$HERE` is
   * a directory of the test's.
   */
  limit(command: string, shell?: string): void;
  readonly directory: string;
  /** Takes it out of PATH again. */
  remove(): void;
}

/** Only what is started after this finds it. */
export function limitGit(): LimitedGit {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-limited-'));
  const path = process.env['PATH'] ?? '';
  const git = execFileSync('sh', ['-c', 'command -v git'], { encoding: 'utf8' }).trim();
  const script = [
    '#!/bin/sh',
    `HERE='${directory}'`,
    '[ ! -e "$HERE/before-$1" ] || . "$HERE/before-$1"',
    `exec '${git}' "$@"`,
    '',
  ];
  writeFileSync(join(directory, 'git'), script.join('\n'));
  chmodSync(join(directory, 'git'), 0o755);
  process.env['PATH'] = `${directory}${delimiter}${path}`;
  return {
    directory,
    limit: (command, shell) => {
      const file = join(directory, `before-${command}`);
      if (shell === undefined) rmSync(file, { force: true });
      else writeFileSync(file, `${shell}\n`);
    },
    remove: () => {
      process.env['PATH'] = path;
      rmSync(directory, { recursive: true });
    },
  };
}
