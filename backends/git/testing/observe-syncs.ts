import { type FileHandle, open } from 'node:fs/promises';
import { readlinkSync } from 'node:fs';
import { mock } from 'node:test';

/** Tells of everything that this process syncs while `run` runs, before it happens, by its path. Linux only. */
export async function observeSyncs(
  observe: (path: string) => void,
  run: () => Promise<void>,
): Promise<void> {
  const handle = await open('/dev/null', 'r');
  const prototype: FileHandle = Object.getPrototypeOf(handle);
  await handle.close();
  // It is called on the handle.
  const original = Reflect.get(prototype, 'sync');
  const observed = mock.method(prototype, 'sync', function sync(this: FileHandle) {
    observe(readlinkSync(`/proc/self/fd/${this.fd}`));
    return Reflect.apply(original, this, []);
  });
  try {
    await run();
  } finally {
    observed.mock.restore();
  }
}
