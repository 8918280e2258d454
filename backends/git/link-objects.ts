import { link, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { QuorateError } from '../contract/errors.js';
import { syncDirectory } from './repository-files.js';

/** What belongs to a pack and moves with it. Times of cruft packs do not: in a pool nothing is cruft. */
const companions = ['.pack', '.rev'] as const;

/**
 * Makes every object of one object directory an object of another as well, by hard links: it costs a few names for
 * each pack, whatever is in it. The caller lets no repack run in either. Packs may be added to `from` meanwhile; what
 * was there at the call is in `to`, durably, on return. Idempotent: a crash leaves packs that do not count yet.
 */
export async function linkObjects(from: string, to: string): Promise<void> {
  await linkLooseObjects(from, to);
  const [source, target] = [join(from, 'pack'), join(to, 'pack')];
  const [names, present] = [new Set(await readdir(source)), new Set(await readdir(target))];
  for (const name of names) {
    // A repack that was stopped may have left others, of objects that are in these.
    if (!/^pack-[0-9a-f]+\.idx$/.test(name)) continue;
    const base = name.slice(0, -'.idx'.length);
    if (!names.has(`${base}.pack`)) continue; // Half removed: its objects are in another.
    if (present.has(name) && present.has(`${base}.pack`)) continue;
    // Without an index a pack does not count, and what is left of one may be of another making than its index here.
    for (const suffix of companions) {
      await rm(join(target, `${base}${suffix}`), { force: true });
      if (names.has(`${base}${suffix}`)) await hardLink(source, target, `${base}${suffix}`);
    }
    await hardLink(source, target, name);
  }
  await syncDirectory(target);
}

/** There are hardly any: pushes come as packs. Hooks may write them. */
async function linkLooseObjects(from: string, to: string): Promise<void> {
  for (const fanout of await readdir(from)) {
    if (!/^[0-9a-f]{2}$/.test(fanout)) continue;
    const [source, target] = [join(from, fanout), join(to, fanout)];
    await mkdir(target, { recursive: true });
    const present = new Set(await readdir(target));
    for (const name of await readdir(source)) {
      if (/^[0-9a-f]{38,62}$/.test(name) && !present.has(name))
        await hardLink(source, target, name);
    }
    await syncDirectory(target);
  }
  await syncDirectory(to);
}

/** Fails with `failed-precondition` where there are no hard links. */
export async function hardLink(source: string, target: string, name: string): Promise<void> {
  try {
    await link(join(source, name), join(target, name));
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    if (code === 'EEXIST') return;
    if (code === 'EPERM' || code === 'ENOTSUP' || code === 'EMLINK') {
      throw new QuorateError(
        'failed-precondition',
        'the file system of this store makes no hard links, without which there are no forks',
        { cause },
      );
    }
    throw cause;
  }
}
