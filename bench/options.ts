import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, type CommanderError, InvalidArgumentError } from 'commander';
import type { Case } from './case.js';
import { cases } from './cases.js';
import { defaultPeerKeys, isPeerKey, peerKeys } from './peers/start-peers.js';
import type { PeerKey } from './peers/start-peers.js';

export interface Options {
  readonly quick: boolean;
  readonly cases: readonly Case[];
  readonly peers: readonly PeerKey[];
  /** Rounds of each case; undefined: as many as the case needs. */
  readonly runs: number | undefined;
  readonly repo: string | undefined;
  readonly json: string | undefined;
  readonly cache: string;
}

interface Flags {
  readonly quick?: true;
  readonly cases?: readonly Case[];
  readonly peers: readonly PeerKey[];
  readonly runs?: number;
  readonly repo?: string;
  readonly json?: string;
  readonly cache: string;
}

export function parseOptions(words: readonly string[]): Options {
  const keys = cases.map(({ key }) => key);
  const program = new Command('npm run bench --')
    .description('Measures Quorate beside other Git servers, in turn, and prints one table.')
    .option('--quick', 'two minutes: fewer rounds, and a smaller large repository')
    .option('--cases <list>', `of ${keys.join(', ')} (default: all)`, parseCases)
    .option('--peers <list>', `of ${peerKeys.join(', ')}`, parsePeers, defaultPeerKeys)
    .option('--runs <n>', 'rounds of each case', wholeNumber)
    .option('--repo <path>', 'measure on this repository in place of made ones of 12 and 100 MB')
    .option('--json <file>', 'write every sample, median and ratio there')
    .option(
      '--cache <dir>',
      'keeps the made repositories',
      join(tmpdir(), 'quorate-bench-fixtures'),
    )
    .helpOption('--help')
    .addHelpText(
      'after',
      '\nnpm run bench -- replicated measures a cluster; see npm run bench -- replicated --help',
    )
    .exitOverride(endWith);
  const flags = program.parse([...words], { from: 'user' }).opts<Flags>();
  const { quick, cases: chosen = cases, peers, runs, repo, json, cache } = flags;
  return { quick: quick === true, cases: chosen, peers, runs, repo, json, cache };
}

function parseCases(text: string): readonly Case[] {
  const keys = text.split(',');
  for (const key of keys) {
    if (!cases.some((candidate) => candidate.key === key)) {
      throw new InvalidArgumentError(`There is no case ${key}.`);
    }
  }
  return cases.filter(({ key }) => keys.includes(key));
}

function parsePeers(text: string): readonly PeerKey[] {
  const keys = text.split(',');
  for (const key of keys) {
    if (!isPeerKey(key)) throw new InvalidArgumentError(`There is no peer ${key}.`);
  }
  return peerKeys.filter((key) => keys.includes(key));
}

/** Of rounds and kills. */
export function wholeNumber(text: string): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1 || number > 1000) {
    throw new InvalidArgumentError('It is a whole number from 1 to 1000.');
  }
  return number;
}

/** Commander has said what there was to say: usage, or in one sentence what is wrong. */
export function endWith({ exitCode }: CommanderError): never {
  process.exit(exitCode === 0 ? 0 : 2);
}
