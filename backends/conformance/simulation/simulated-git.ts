import { Readable } from 'node:stream';
import type { GitStream } from '../../contract/backend.js';
import type { HookEnd } from '../../contract/hook.js';
import type { Oid } from '../../contract/objects.js';
import type { GitCommand, GitConversation, GitResult, GitRunner } from '../../git/git-runner.js';
import { type GitRun, objectsOf, understand } from './git-run.js';
import { closureOf, encodePack, type ModelObject } from './pack-model.js';
import { initRepository, packRefs, repack, type Repacking } from './simulated-git-upkeep.js';
import { RefUpdate } from './simulated-ref-update.js';
import type { Hang } from './hanging-disk.js';
import type { SimulatedDisk } from './simulated-disk.js';
import { never, type SimulatedProcess } from './simulated-process.js';

interface Answer {
  readonly exitCode: number;
  readonly stdout?: string | Buffer;
  readonly stderr?: string;
}

/**
 * git, as far as the code under simulation runs it, over simulated disks: it changes files in git's own steps, so
 * that a crash may come between any two of them. It knows commits and tags only (pack-model.ts).
 */
export class SimulatedGit implements GitRunner {
  readonly version = '2.39.5';
  readonly running = 0;
  readonly conversations = 256;
  readonly #process: SimulatedProcess;

  constructor(process: SimulatedProcess) {
    this.#process = process;
  }

  async run(command: GitCommand): Promise<GitResult> {
    const stdin = command.stdin instanceof Uint8Array ? command.stdin : undefined;
    const answer = await this.#answer(command, Buffer.from(stdin ?? '').toString('utf8'));
    return {
      exitCode: answer.exitCode,
      signal: null,
      stdout: Buffer.from(answer.stdout ?? ''),
      stderr: answer.stderr ?? '',
    };
  }

  async stream(command: GitCommand): Promise<GitStream> {
    const { exitCode, stdout, stderr } = await this.run(command);
    return {
      stdout: Readable.from(stdout.length === 0 ? [] : [stdout]),
      exited: Promise.resolve({ exitCode, signal: null, stderr }),
      kill: () => undefined,
    };
  }

  async converse(command: Omit<GitCommand, 'stdin'>): Promise<GitConversation> {
    await this.#process.effect(0.3, () => undefined);
    return new Conversation((stdin) => this.#answer(command, stdin));
  }

  async program(): Promise<HookEnd> {
    throw new Error('the simulation runs no programs');
  }

  async close(): Promise<void> {}

  async #answer(command: Omit<GitCommand, 'stdin'>, stdin: string): Promise<Answer> {
    const run = understand(command, stdin);
    const name = command.args[0] ?? '';
    const execute = commands[name];
    if (execute === undefined)
      throw new Error(`the simulation has no git ${command.args.join(' ')}`);
    await this.#process.effect(this.#process.random.between(0.2, 1), () => undefined);
    for (let hang = held(run.place.disk); hang !== undefined; hang = held(run.place.disk)) {
      await hang.whenOver(() => undefined);
      // Nobody hears of it any more, and it changes nothing.
      if (!this.#process.alive) return never();
    }
    if (name === 'repack' && run.place.path.startsWith('store/pools/')) {
      this.#process.count('pools repacked');
    }
    if (listing.has(name) && run.store.isUnreadable) {
      return { exitCode: 128, stderr: 'fatal: unexpected line in packed-refs' };
    }
    return execute(run);
  }
}

/** Each git reads something first. */
function held({ hang }: SimulatedDisk): Hang | undefined {
  return hang?.holds('read') === true ? hang : undefined;
}

/** Those that go through all refs. */
const listing = new Set(['upload-pack', 'for-each-ref', 'pack-refs', 'repack', 'fsck']);

/** A git that is asked again and again. Each exchange is one write and its answer. */
class Conversation implements GitConversation {
  readonly stdout = new Readable({ read: () => undefined });
  readonly exited: GitConversation['exited'];
  readonly #ask: (stdin: string) => Promise<Answer>;
  #exit: (exitCode: number) => void = () => undefined;
  #ended = false;

  constructor(ask: (stdin: string) => Promise<Answer>) {
    this.#ask = ask;
    this.exited = new Promise((resolve) => {
      this.#exit = (exitCode) => resolve({ exitCode, signal: null, stderr: '' });
    });
  }

  get left(): GitConversation['left'] {
    return this.exited;
  }

  async write(bytes: Uint8Array | string): Promise<void> {
    const { exitCode, stdout } = await this.#ask(Buffer.from(bytes).toString('utf8')).catch(
      (error: unknown) => {
        // Whoever reads on is not to wait for a git that is gone.
        this.#end(128);
        throw error;
      },
    );
    if (this.#ended) return;
    if (stdout !== undefined) this.stdout.push(stdout);
    if (exitCode !== 0) this.#end(exitCode);
  }

  end(): void {
    this.#end(0);
  }

  kill(): void {
    this.#end(1);
  }

  #end(exitCode: number): void {
    if (this.#ended) return;
    this.#ended = true;
    this.stdout.push(null);
    this.#exit(exitCode);
  }
}

const commands: Readonly<Record<string, (run: GitRun) => Promise<Answer> | Answer>> = {
  init: async (run) => {
    await initRepository(run);
    return { exitCode: 0 };
  },
  'upload-pack': (run) => ({ exitCode: 0, stdout: listRefs(run) }),
  'for-each-ref': forEachRef,
  'rev-parse': () => ({ exitCode: 0, stdout: 'sha1\n' }),
  'update-ref': (run) => new RefUpdate(run).execute(),
  'rev-list': revList,
  'merge-base': isAncestor,
  'cat-file': describeObjects,
  'pack-refs': async (run) => ({ exitCode: (await packRefs(run)) ? 0 : 128 }),
  repack: async (run) => ({ exitCode: (await repack(run, repackingOf(run.args))) ? 0 : 128 }),
  'pack-objects': packObjects,
  'commit-graph': () => ({ exitCode: 0 }),
  'multi-pack-index': () => ({ exitCode: 0 }),
  fsck,
};

/** `ls-refs` with peel, symrefs and unborn (gitprotocol-v2). */
function listRefs(run: GitRun): string {
  const refs = run.store.refs();
  const head = run.store.head();
  const objects = objectsOf(run);
  const lines: string[] = [];
  if (head !== undefined && 'symref' in head) {
    lines.push(`${refs.get(head.symref) ?? 'unborn'} HEAD symref-target:${head.symref}`);
  } else if (head !== undefined) lines.push(`${head.oid} HEAD`);
  for (const [name, oid] of refs) {
    const peeled = objects.get(oid)?.type === 'tag' ? peel(oid, objects) : undefined;
    lines.push(`${oid} ${name}${peeled === undefined ? '' : ` peeled:${peeled}`}`);
  }
  const packets = lines.map((line) => {
    const length = Buffer.byteLength(line) + 5;
    return `${length.toString(16).padStart(4, '0')}${line}\n`;
  });
  return `${packets.join('')}0000`;
}

function peel(oid: Oid, objects: ReadonlyMap<Oid, ModelObject>): Oid | undefined {
  let object = objects.get(oid);
  while (object?.type === 'tag') object = objects.get(object.links[0] ?? '');
  return object?.oid;
}

function forEachRef({ args, store }: GitRun): Answer {
  const patterns = args.slice(args.indexOf('--') + 1);
  const named = args.includes('--') && patterns.length > 0;
  const withNames = args.some((arg) => arg.includes('%(refname)'));
  const lines = [...store.refs()]
    .filter(([name]) => !named || patterns.some((it) => name === it || name.startsWith(`${it}/`)))
    .map(([name, oid]) => (withNames ? `${oid} ${name}\n` : `${oid}\n`));
  return { exitCode: 0, stdout: lines.join('') };
}

/** A walk from some objects down to others; fails when something on the way is missing. */
function revList(run: GitRun): Answer {
  const objects = objectsOf(run);
  const lines = run.stdin.split('\n').filter((line) => line !== '');
  const excluded = lines.filter((line) => line.startsWith('^')).map((line) => line.slice(1));
  const known = closureOf(
    excluded.filter((oid) => objects.has(oid)),
    (oid) => objects.get(oid) ?? { oid, type: 'commit', links: [] },
  );
  const found = closureOf(
    lines.filter((line) => !line.startsWith('^')),
    (oid) => objects.get(oid),
    new Set(known?.keys()),
  );
  if (found === undefined) return { exitCode: 128, stderr: 'missing objects' };
  if (run.args.includes('--quiet')) return { exitCode: 0 };
  const max = run.args.includes('--max-count=1') ? 1 : Infinity;
  return { exitCode: 0, stdout: [...found.keys()].slice(0, max).join('\n') };
}

function isAncestor(run: GitRun): Answer {
  const [ancestor = '', descendant = ''] = run.args.slice(-2);
  const objects = objectsOf(run);
  const found = closureOf([descendant], (oid) => objects.get(oid));
  if (found === undefined) return { exitCode: 128 };
  return { exitCode: found.has(ancestor) ? 0 : 1 };
}

function describeObjects(run: GitRun): Answer {
  const objects = objectsOf(run);
  const namesOnly = run.args.some((arg) => arg === '--batch-check=%(objectname)');
  const lines = run.stdin.split('\n').filter((line) => line !== '');
  const answers = lines.map((question) => {
    const oid = question.replace('^{}', '');
    const object = objects.get(question.endsWith('^{}') ? (peel(oid, objects) ?? '') : oid);
    if (object === undefined) return `${question} missing\n`;
    return namesOnly ? `${object.oid}\n` : `${object.oid} ${object.type} 100\n`;
  });
  return { exitCode: 0, stdout: answers.join('') };
}

/** `--revs --stdout`: everything between the given revisions; fails when some of it is missing. */
function packObjects(run: GitRun): Answer {
  const objects = objectsOf(run);
  const revisions = run.stdin.split('\n').filter((line) => line !== '');
  const excluded = new Set<Oid>();
  const wanted: Oid[] = [];
  let not = false;
  for (const line of revisions) {
    if (line === '--not') not = !not;
    else if (line.startsWith('^') || not) {
      const below = closureOf([line.replace('^', '')], (oid) => objects.get(oid));
      for (const oid of below?.keys() ?? []) excluded.add(oid);
    } else if (!line.startsWith('-')) wanted.push(line);
  }
  if (run.args.includes('--all')) wanted.push(...run.store.refs().values());
  const found = closureOf(wanted, (oid) => objects.get(oid), excluded);
  if (found === undefined) return { exitCode: 128, stderr: 'missing objects' };
  return { exitCode: 0, stdout: encodePack([...found.values()]) };
}

function fsck(run: GitRun): Answer {
  const objects = objectsOf(run);
  const problems: string[] = [];
  for (const directory of run.objectDirectories) {
    for (const { name, contents } of run.store.packs(directory)) {
      if (contents.length === 0) problems.push(`error: ${name} is damaged`);
    }
  }
  for (const name of run.store.brokenRefs()) problems.push(`error: ${name}: badRefContent`);
  for (const [name, oid] of run.store.refs()) {
    if (closureOf([oid], (wanted) => objects.get(wanted)) === undefined) {
      problems.push(`missing objects of ${name}`);
    }
  }
  const text = problems.map((line) => `${line}\n`).join('');
  return { exitCode: problems.length === 0 ? 0 : 2, stdout: text, stderr: text };
}

function repackingOf(args: readonly string[]): Repacking {
  const expiry = args.find((arg) => arg.startsWith('--cruft-expiration=@'));
  return {
    kind: args.some((arg) => arg.startsWith('--geometric')) ? 'geometric' : 'full',
    cruft: args.includes('--cruft'),
    ...(expiry === undefined
      ? {}
      : { expireBeforeMs: Number.parseInt(expiry.slice(20), 10) * 1000 }),
  };
}
