import { Command, InvalidArgumentError } from 'commander';

export interface Options {
  readonly data?: string;
  readonly storage: number;
  readonly frontEnds: number;
  readonly basePort?: number;
  readonly json?: string;
}

/** What `npm run cluster` was given. Ends the process after usage, or one sentence that says what is wrong. */
export function parseOptions(words: readonly string[]): Options {
  return new Command('npm run cluster --')
    .description(
      'Starts etcd, storage nodes and front-ends on this machine; Ctrl-C stops all of it.',
    )
    .option(
      '--data <dir>',
      'keeps everything there, and goes on with what is there (default: a temporary directory)',
    )
    .option('--storage <n>', 'storage nodes', wholeNumber(1, 10), 3)
    .option('--front-ends <n>', 'front-ends', wholeNumber(1, 10), 2)
    .option(
      '--base-port <p>',
      'ports from P to P+79 (default: free ones)',
      wholeNumber(1024, 65_000),
    )
    .option('--json <file>', 'writes where everything is, once all of it serves')
    .helpOption('--help')
    .allowExcessArguments(false)
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
    .parse([...words], { from: 'user' })
    .opts<Options>();
}

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It is a whole number from ${least} to ${most}.`);
  };
}
