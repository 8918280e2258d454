import { QuorateError } from '../contract/errors.js';
import type {
  Head,
  ObjectFormat,
  Oid,
  RefCommand,
  RefEntry,
  RefSnapshot,
} from '../contract/objects.js';
import type { GitRunner } from './git-runner.js';
import { troubleOf } from './machine-trouble.js';
import { digestOf } from './digest.js';
import { isZero } from './ref-commands.js';
import { parseRefListing, writeListRequest } from './ref-listing.js';
import { compareBytewise } from './ref-order.js';
import { readRefsOnDisk } from './refs-on-disk.js';

/** 1,000,000 refs with long names. */
const maxListingBytes = 512 * 1024 * 1024;

export interface ReadRefSnapshot {
  readonly git: GitRunner;
  readonly gitDir: string;
  readonly generation: number;
  /** Asked of git when absent, which costs one more process. */
  readonly objectFormat?: ObjectFormat;
  readonly signal?: AbortSignal;
}

/**
 * All refs as they are on disk, hidden ones included. Left out are broken and dangling refs, and names that are not
 * UTF-8 (nothing can ask for them). A ref whose object is missing is listed: its value is what it is.
 * Errors: `data-corrupt` (no HEAD that can be read), `storage-failure`, `unavailable` (the machine kept git from it).
 * What git cannot open it may pass over without an error: see `readKnownRefs`.
 */
export async function readRefSnapshot(options: ReadRefSnapshot): Promise<RefSnapshot> {
  const { git, gitDir, generation } = options;
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  const result = await git.run({
    args: ['upload-pack', '--strict', '--stateless-rpc', '--', gitDir],
    env: { GIT_PROTOCOL: 'version=2' },
    config: {
      'lsrefs.unborn': 'allow',
      // Later entries overrule earlier ones: nothing is hidden here, whatever the repository's own configuration says.
      'transfer.hideRefs': '!refs/',
      'uploadpack.hideRefs': '!refs/',
    },
    stdin: writeListRequest(options.objectFormat ?? (await readObjectFormat(options))),
    maxStdoutBytes: maxListingBytes,
    ...signal,
  });
  const trouble = troubleOf(result);
  if (trouble !== undefined) {
    const why = trouble.replaceAll(gitDir, '.');
    throw new QuorateError('unavailable', `the refs could not be read: ${why}; try again`, {
      details: { signal: result.signal },
    });
  }
  if (result.exitCode !== 0) {
    throw new QuorateError('storage-failure', 'the refs of the repository cannot be read', {
      details: { stderr: result.stderr },
    });
  }
  const { head, refs } = parseRefListing(result.stdout);
  if (head === undefined) {
    const onDisk = await readRefsOnDisk(gitDir);
    // git passes over one that names a broken ref.
    const isBroken =
      onDisk.head === undefined ||
      ('symref' in onDisk.head && onDisk.broken.has(onDisk.head.symref));
    if (!isBroken) throw misread();
    throw new QuorateError('data-corrupt', 'the HEAD of the repository cannot be read');
  }
  return createRefSnapshot({ generation, head, refs });
}

/**
 * As `readRefSnapshot`, of refs whose digest is known. Where git says otherwise, the files have the last word: a git
 * that is short of file descriptors says that refs are not there, or zero. Errors: `unavailable` then.
 */
export async function readKnownRefs(
  options: ReadRefSnapshot & { readonly digest: string },
): Promise<{ readonly snapshot: RefSnapshot; readonly digest: string }> {
  const snapshot = await readRefSnapshot(options);
  const digest = digestOf(snapshot);
  if (digest === options.digest) return { snapshot, digest };
  const { head, refs } = await readRefsOnDisk(options.gitDir);
  if (head === undefined) return { snapshot, digest };
  const onDisk = createRefSnapshot({ generation: options.generation, head, refs });
  if (digestOf(onDisk) === options.digest) throw misread();
  return { snapshot, digest };
}

function misread(): QuorateError {
  return new QuorateError(
    'unavailable',
    'git did not see the refs that are on the disk: see whether files or memory are short, and try again',
  );
}

/** `sha1` or `sha256`, as the repository's configuration says. */
export async function readObjectFormat(options: {
  readonly git: GitRunner;
  readonly gitDir: string;
}): Promise<ObjectFormat> {
  const { exitCode, stdout } = await options.git.run({
    args: ['rev-parse', '--show-object-format'],
    env: { GIT_DIR: options.gitDir },
  });
  const format = stdout.toString().trim();
  if (exitCode !== 0 || (format !== 'sha1' && format !== 'sha256')) {
    throw new QuorateError('storage-failure', 'the repository cannot be read');
  }
  return format;
}

/** A snapshot of given refs, in any order. */
export function createRefSnapshot(content: {
  readonly generation: number;
  readonly head: Head;
  readonly refs: readonly RefEntry[];
}): RefSnapshot {
  const { refs } = content;
  const sorted = refs.every(
    (entry, index) => index === 0 || compareBytewise(refs[index - 1]?.name ?? '', entry.name) < 0,
  );
  return new SortedSnapshot(
    content.generation,
    content.head,
    sorted ? refs : [...refs].sort((a, b) => compareBytewise(a.name, b.name)),
  );
}

export interface NextSnapshot {
  readonly generation: number;
  /** Applied, all of them. */
  readonly updates: readonly RefCommand[];
  /** HEAD, when it changed. */
  readonly head?: Head;
  /** For each new value that is an annotated tag, what it finally points at (`ObjectReader.peel`). */
  readonly peeled: ReadonlyMap<Oid, Oid>;
}

/** The snapshot after an apply, without reading the refs again. Shares what did not change. */
export function nextSnapshot(snapshot: RefSnapshot, change: NextSnapshot): RefSnapshot {
  const changed = new Map<string, RefEntry | undefined>();
  for (const { ref, newOid } of change.updates) {
    changed.set(ref, isZero(newOid) ? undefined : entryOf(ref, newOid, change.peeled));
  }
  const refs = followSymrefs(merge(snapshot, changed), changed);
  return new SortedSnapshot(change.generation, change.head ?? snapshot.head, refs);
}

function entryOf(name: string, oid: Oid, peeledOids: ReadonlyMap<Oid, Oid>): RefEntry {
  const peeled = peeledOids.get(oid);
  return peeled === undefined ? { name, oid } : { name, oid, peeled };
}

function merge(
  snapshot: RefSnapshot,
  changed: ReadonlyMap<string, RefEntry | undefined>,
): RefEntry[] {
  const names = [...changed.keys()].sort(compareBytewise);
  const merged: RefEntry[] = [];
  let copied = 0;
  for (const name of names) {
    const [start, end] = exactRange(snapshot.refs, name);
    for (; copied < start; copied++) push(merged, snapshot.refs[copied]);
    push(merged, changed.get(name));
    copied = end;
  }
  for (; copied < snapshot.refs.length; copied++) push(merged, snapshot.refs[copied]);
  return merged;
}

function push(entries: RefEntry[], entry: RefEntry | undefined): void {
  if (entry !== undefined) entries.push(entry);
}

/** Symbolic refs show the value of what they name; they vanish with it. */
function followSymrefs(
  refs: RefEntry[],
  changed: ReadonlyMap<string, RefEntry | undefined>,
): RefEntry[] {
  const affected = refs.some(({ symref }) => symref !== undefined && changed.has(symref));
  if (!affected) return refs;
  return refs.flatMap((entry) => {
    if (entry.symref === undefined || !changed.has(entry.symref)) return [entry];
    const target = changed.get(entry.symref);
    return target === undefined ? [] : [{ ...target, name: entry.name, symref: entry.symref }];
  });
}

class SortedSnapshot implements RefSnapshot {
  readonly generation: number;
  readonly head: Head;
  readonly refs: readonly RefEntry[];
  #tips: ReadonlySet<Oid> | undefined;

  constructor(generation: number, head: Head, refs: readonly RefEntry[]) {
    this.generation = generation;
    this.head = head;
    this.refs = refs;
  }

  find(name: string): RefEntry | undefined {
    const [start, end] = exactRange(this.refs, name);
    return start < end ? this.refs[start] : undefined;
  }

  prefixRange(prefix: string): readonly [number, number] {
    const { refs } = this;
    const start = lowerBound(refs, (name) => compareBytewise(name, prefix) < 0);
    // Most prefixes are whole names and select one ref: the end is looked for from the start on, in growing steps.
    let step = 1;
    while (refs[start + step - 1]?.name.startsWith(prefix) === true) step *= 2;
    const end = lowerBound(refs, (name) => name.startsWith(prefix), {
      low: start + Math.floor(step / 2),
      high: Math.min(start + step - 1, refs.length),
    });
    return [start, end];
  }

  hasTip(oid: Oid): boolean {
    this.#tips ??= new Set(this.refs.map((entry) => entry.oid));
    return this.#tips.has(oid);
  }
}

function exactRange(refs: readonly RefEntry[], name: string): readonly [number, number] {
  const start = lowerBound(refs, (candidate) => compareBytewise(candidate, name) < 0);
  return [start, refs[start]?.name === name ? start + 1 : start];
}

/**
 * Number of entries at the front for which `before` holds; it holds for a prefix of them, whose end is `within` these
 * places.
 */
function lowerBound(
  refs: readonly RefEntry[],
  before: (name: string) => boolean,
  within = { low: 0, high: refs.length },
): number {
  let { low, high } = within;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const entry = refs[middle];
    if (entry !== undefined && before(entry.name)) low = middle + 1;
    else high = middle;
  }
  return low;
}
