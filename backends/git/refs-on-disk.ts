import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Head, Oid, RefEntry } from '../contract/objects.js';
import { filesUnder, isRefName } from './ref-files.js';
import { errorCode, isMissing } from './repository-files.js';

// git's white space, which has no vertical tab and no form feed: a bit that turned over makes one of a newline.
const looseRef = /^([0-9a-f]{40}|[0-9a-f]{64})[ \t\r\n]*$/;
// A name may hold what JavaScript takes for the end of a line (U+2028).
const packedRef = /^([0-9a-f]{40}|[0-9a-f]{64}) (refs\/.+)$/s;
const symref = /^ref: *([^ \t\r\n]+)[ \t\r\n]*$/;

export interface RefsOnDisk {
  /** Undefined when the file holds none. */
  readonly head: Head | undefined;
  readonly refs: readonly RefEntry[];
  /** Files in the places of refs that hold none. */
  readonly broken: ReadonlySet<string>;
}

/**
 * The refs of a repository as its files say (gitrepository-layout(5)), without a git: one that has no file descriptor
 * left passes over what it cannot open, and exits 0. Here whatever keeps a file from being read is an error, of the
 * file system's. Symbolic refs are left out, as from the digest. While nobody changes them.
 */
export async function readRefsOnDisk(gitDir: string): Promise<RefsOnDisk> {
  const broken = new Set<string>();
  const refs = await packedRefs(gitDir);
  // No ref can be named like a lock.
  const files = await filesUnder(join(gitDir, 'refs'), (name) => !name.endsWith('.lock'));
  for (const path of files) {
    const name = path.slice(gitDir.length + 1);
    const text = (await readOrMissing(path)) ?? '';
    const oid = looseRef.exec(text)?.[1];
    if (oid === undefined) refs.delete(name);
    else refs.set(name, oid);
    if (oid === undefined && targetIn(text) === undefined) broken.add(name);
  }
  const head = parseHead((await readOrMissing(join(gitDir, 'HEAD'))) ?? '');
  return { head, refs: [...refs].map(([name, oid]) => ({ name, oid })), broken };
}

/** Values of some refs, as `readRefsOnDisk`; a ref without a value, or that is symbolic, is not in the answer. */
export async function readValuesOnDisk(
  gitDir: string,
  names: readonly string[],
): Promise<ReadonlyMap<string, Oid>> {
  const packed = await packedRefs(gitDir);
  const values = new Map<string, Oid>();
  for (const name of names) {
    const text = await readOrMissing(join(gitDir, name));
    const oid = text === undefined ? packed.get(name) : looseRef.exec(text)?.[1];
    if (oid !== undefined) values.set(name, oid);
  }
  return values;
}

async function packedRefs(gitDir: string): Promise<Map<string, Oid>> {
  const refs = new Map<string, Oid>();
  for (const line of ((await readOrMissing(join(gitDir, 'packed-refs'))) ?? '').split('\n')) {
    const [, oid, name] = packedRef.exec(line) ?? [];
    if (oid !== undefined && name !== undefined) refs.set(name, oid);
  }
  return refs;
}

function parseHead(text: string): Head | undefined {
  const target = targetIn(text);
  if (target !== undefined) return { symref: target };
  const oid = looseRef.exec(text)?.[1];
  return oid === undefined ? undefined : { oid };
}

/** What a symbolic ref names. git takes one that names what can be no ref for broken, and lists no HEAD then. */
function targetIn(text: string): string | undefined {
  const target = symref.exec(text)?.[1];
  return target !== undefined && isRefName(target) ? target : undefined;
}

/** A directory in the place of a ref is none; nor is what would be below another ref. */
async function readOrMissing(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isMissing(error) || ['EISDIR', 'ENOTDIR'].includes(errorCode(error))) return undefined;
    throw error;
  }
}
