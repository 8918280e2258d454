/**
 * What may be removed for good, and when. git knows an object's age only by the time of its pack, so a branch of an
 * old pack would go the moment it is deleted. Therefore the tips of all refs are recorded now and then, and an object
 * goes only if
 * - no ref reaches it now, no pinned object, and no tip recorded in the grace period, nor the last one before it
 *   (which says what was there when the period began); and
 * - its pack is older than the grace period, for what came and went between two records.
 */
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { QuorateError } from '../contract/errors.js';
import type { Oid } from '../contract/objects.js';
import { readRefsOnDisk } from './refs-on-disk.js';
import {
  isMissing,
  readObjectStoreStats,
  syncDirectory,
  writeFileDurably,
} from './repository-files.js';
import {
  runMaintenanceGit,
  runRepack,
  writeCommitGraph,
  type MaintenanceContext,
} from './run-maintenance-git.js';

/** Beside the refs, in files that git does not know: `<milliseconds>`, one object id a line. */
export const RECORDS = 'quorate-tips';
const VIEW_PREFIX = 'quorate-view-';
/** Records in one grace period: bounds their size, and costs no more than this part of the period. */
const RECORDS_PER_GRACE = 14;
const DAY_MS = 86_400_000;

/** Records the tips of all refs when the last record is old enough, and forgets records that no longer matter. */
export async function recordTips(
  context: MaintenanceContext,
  options: { readonly nowMs: number; readonly graceMs: number },
): Promise<void> {
  const { nowMs, graceMs } = options;
  const directory = join(context.gitDir, RECORDS);
  await mkdir(directory, { recursive: true });
  const times = await recordTimes(directory);
  // From a clock that was ahead: such a record would stay for ever and keep others from being made.
  for (const time of times.filter((time) => time > nowMs + DAY_MS)) {
    await rm(join(directory, recordName(time)), { force: true });
  }
  const past = times.filter((time) => time <= nowMs + DAY_MS);
  const last = past.at(-1);
  if (last === undefined || nowMs - last >= graceMs / RECORDS_PER_GRACE) {
    const tips = await currentTips(context);
    await writeFileDurably(join(directory, recordName(nowMs)), [...tips, ''].join('\n'));
    await syncDirectory(context.gitDir);
  }
  for (const [i, time] of past.entries()) {
    const next = past[i + 1];
    if (next === undefined || next > nowMs - graceMs) break;
    await rm(join(directory, recordName(time)), { force: true });
  }
}

/**
 * Removes objects that have been unreachable for the grace period. Nothing happens before there is a record as old as
 * that, or when no cruft pack holds anything old enough: a run repacks everything.
 */
export async function pruneUnreachable(
  context: MaintenanceContext,
  options: {
    readonly nowMs: number;
    readonly graceMs: number;
    readonly pinned: readonly Oid[];
  },
): Promise<boolean> {
  const horizonMs = options.nowMs - options.graceMs;
  const records = join(context.gitDir, RECORDS);
  const times = await recordTimes(records);
  const [oldest] = times;
  if (oldest === undefined || oldest > horizonMs) return false;
  const objectsDir = join(context.gitDir, 'objects');
  const { cruftPackCount, borrows } = await readObjectStoreStats(objectsDir);
  if (cruftPackCount === 0) return false;
  if (!(await holdsOldCruft(join(objectsDir, 'pack'), horizonMs))) return false;

  const kept = new Set<Oid>(options.pinned);
  for (const time of times) {
    const record = await readFile(join(records, recordName(time)), 'latin1');
    for (const oid of record.split('\n')) if (oid !== '') kept.add(oid);
  }
  const current = await currentTips(context);
  const tips = new Set([...current, ...(await existing(context, kept))]);
  // Before the commits go: a graph that lists a commit vouches for it.
  await writeCommitGraph(context, 'anew');
  await syncCommitGraphs(objectsDir);
  await repackReaching(context, tips, { horizonMs, borrows });
  return true;
}

/** git syncs the graphs, and not which of them count. Where no commit is there are none. */
async function syncCommitGraphs(objectsDir: string): Promise<void> {
  const info = join(objectsDir, 'info');
  for (const directory of [join(info, 'commit-graphs'), info]) {
    await syncDirectory(directory).catch((error: unknown) => {
      if (!isMissing(error)) throw error;
    });
  }
}

/**
 * Repacks with `tips` as the only refs: in a repository of its own that shares the objects, so that neither readers
 * nor the ref store see them.
 */
async function repackReaching(
  context: MaintenanceContext,
  tips: ReadonlySet<Oid>,
  { horizonMs, borrows }: { readonly horizonMs: number; readonly borrows: boolean },
): Promise<void> {
  const view = await mkdtemp(join(context.gitDir, VIEW_PREFIX));
  try {
    const format = await runMaintenanceGit(context, {
      args: ['rev-parse', '--show-object-format'],
    });
    const sha256 = format.stdout.toString('latin1').trim() === 'sha256';
    await mkdir(join(view, 'refs'));
    await writeFile(join(view, 'HEAD'), 'ref: refs/heads/none\n');
    await writeFile(
      join(view, 'config'),
      sha256
        ? '[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n'
        : '[core]\n\trepositoryformatversion = 0\n\tbare = true\n',
    );
    const refs = [...tips].map((oid, i) => `${oid} refs/tips/${String(i).padStart(9, '0')}\n`);
    await writeFile(join(view, 'packed-refs'), `# pack-refs with: sorted \n${refs.join('')}`);
    await runRepack(
      context,
      [
        '-a',
        '--cruft',
        `--cruft-expiration=@${Math.floor(horizonMs / 1000)} +0000`,
        ...(borrows ? ['-l', '--no-write-bitmap-index'] : ['--write-bitmap-index']),
      ],
      { GIT_DIR: view, GIT_OBJECT_DIRECTORY: join(context.gitDir, 'objects') },
    );
  } finally {
    await rm(view, { recursive: true, force: true });
  }
}

/** Removes what a killed prune left beside the refs. */
export async function removeStaleViews(
  gitDir: string,
  options: { readonly nowMs: number; readonly olderThanMs: number },
): Promise<void> {
  for (const name of await readdir(gitDir)) {
    if (!name.startsWith(VIEW_PREFIX)) continue;
    const { mtimeMs } = await stat(join(gitDir, name));
    if (mtimeMs > options.nowMs - options.olderThanMs) continue;
    await rm(join(gitDir, name), { recursive: true, force: true });
  }
}

/** Objects that refs (and a detached HEAD) name, sorted. */
async function currentTips(context: MaintenanceContext): Promise<readonly Oid[]> {
  const listed = await runMaintenanceGit(context, {
    args: ['for-each-ref', '--format=%(objectname)'],
    maxStdoutBytes: MAX_LIST_BYTES,
  });
  const tips = new Set(lines(listed.stdout));
  // git passes over refs that it cannot open; what they reach must not go for that.
  const { head, refs } = await readRefsOnDisk(context.gitDir);
  for (const { oid } of refs) tips.add(oid);
  if (head !== undefined && 'oid' in head) tips.add(head.oid);
  return [...tips].sort();
}

/** The ones of `oids` that are there: a record or a pin may outlive a quarantine that was dropped. */
async function existing(
  context: MaintenanceContext,
  oids: ReadonlySet<Oid>,
): Promise<readonly Oid[]> {
  if (oids.size === 0) return [];
  const checked = await runMaintenanceGit(context, {
    args: ['cat-file', '--batch-check=%(objectname)'],
    stdin: Buffer.from([...oids, ''].join('\n'), 'latin1'),
    maxStdoutBytes: MAX_LIST_BYTES,
  });
  // `<oid> missing` for the others (git-cat-file(1), "BATCH OUTPUT").
  return lines(checked.stdout).filter((line) => !line.includes(' '));
}

/** Some four million tips. */
const MAX_LIST_BYTES = 256 * 1024 ** 2;

function lines(output: Buffer): string[] {
  return output
    .toString('latin1')
    .split('\n')
    .filter((line) => line !== '');
}

const MTIMES_HEADER_BYTES = 12;
const CHECKSUM_BYTES = { 1: 20, 2: 32 } as const;

/** Whether a cruft pack has an object from before the horizon (gitformat-pack(5), "pack-*.mtimes files"). */
async function holdsOldCruft(packDir: string, horizonMs: number): Promise<boolean> {
  for (const name of await readdir(packDir)) {
    if (!name.endsWith('.mtimes')) continue;
    const table = await readFile(join(packDir, name));
    if (table.length < MTIMES_HEADER_BYTES || table.toString('latin1', 0, 4) !== 'MTME') {
      throw new QuorateError('data-corrupt', 'a cruft pack has no table of times');
    }
    const checksum = CHECKSUM_BYTES[table.readUInt32BE(8) === 2 ? 2 : 1];
    for (let at = MTIMES_HEADER_BYTES; at + 4 <= table.length - 2 * checksum; at += 4) {
      if (table.readUInt32BE(at) * 1000 < horizonMs) return true;
    }
  }
  return false;
}

async function recordTimes(directory: string): Promise<readonly number[]> {
  const names = await readdir(directory).catch(() => []);
  return names
    .filter((name) => /^\d{16}$/.test(name))
    .map(Number)
    .sort((a, b) => a - b);
}

function recordName(timeMs: number): string {
  return String(Math.floor(timeMs)).padStart(16, '0');
}
