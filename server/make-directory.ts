import { mkdir, stat } from 'node:fs/promises';
import path from 'node:path';

/**
 * Makes a directory that somebody named, and those above it that are missing, mode 0700; one that is there is as good.
 * Rejects as `mkdir` does. Node's own `recursive` never ends where a file system answers ENOENT although the directory
 * above is there, as `/proc` does.
 */
export async function makeDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { mode: 0o700 });
    return;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EEXIST' && (await stat(directory)).isDirectory()) return;
    const above = path.dirname(directory);
    if (code !== 'ENOENT' || above === directory || (await isThere(above))) throw error;
    await makeDirectory(above);
  }
  // Another process may make it at the same time; and where there is still no place for it, that is the answer.
  await mkdir(directory, { mode: 0o700 }).catch(async (error: unknown) => {
    if (!(await isThere(directory))) throw error;
  });
}

async function isThere(directory: string): Promise<boolean> {
  return stat(directory).then(
    () => true,
    () => false,
  );
}
