import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdirSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../../contract/testing/until.js';
import { buildPack, copyDelta, objectId } from './build-pack.js';

/** A pack on which libgit2 works until somebody ends it, however fast or slow the machine is. */
export interface EndlessPack {
  readonly pack: Uint8Array;
  /** Waits until libgit2 asks for the base, and gives it an end: the base is broken then. */
  end(): Promise<void>;
  /** The base goes. Nobody may wait for it any more. */
  remove(): void;
}

/** A thin pack; its base in `objectsDir` is a pipe, which says nothing. */
export function makeEndlessPack(objectsDir: string): EndlessPack {
  const base = Buffer.from('never told');
  const oid = objectId('blob', base);
  const directory = join(objectsDir, oid.slice(0, 2));
  const pipe = join(directory, oid.slice(2));
  mkdirSync(directory);
  execFileSync('mkfifo', [pipe]);
  const all = base.length;
  const delta = copyDelta({ baseBytes: all, resultBytes: all, copyBytes: all, times: 1 });
  let writer: number | undefined;
  return {
    pack: buildPack([{ type: 'ref-delta', base: oid, delta }]),
    end: () =>
      until('libgit2 to ask for the base', () => {
        writer ??= openForWriting(pipe);
        return writer !== undefined;
      }),
    remove: () => {
      if (writer !== undefined) closeSync(writer);
      rmSync(directory, { recursive: true });
    },
  };
}

/** undefined while nobody has it open for reading. */
function openForWriting(pipe: string): number | undefined {
  try {
    return openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENXIO') return undefined;
    throw error;
  }
}
