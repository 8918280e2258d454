import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { writeFileDurably } from '../git/repository-files.js';

/** Which refs: never equal for refs that differ. */
export interface RefsIdentity {
  readonly generation: number;
  readonly digest: string;
}

/** A pack that holds exactly what the refs of a generation reach. */
export interface WholePack extends RefsIdentity {
  /** The pack's trailer, which names its file: a file of that name has that content. */
  readonly pack: string;
}

const schema = z.object({
  pack: z.string().regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/),
  generation: z.int().min(0),
  digest: z.string(),
});

/** Undefined when there is none, or none that can be read: it only spares work. */
export async function readWholePack(path: string): Promise<WholePack | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return undefined;
  }
}

/** Durable on return. */
export async function writeWholePack(path: string, wholePack: WholePack): Promise<void> {
  await writeFileDurably(path, JSON.stringify(wholePack));
}
