import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmdirSync,
  statfsSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { absent, type FileStep, noRoom } from '../file-steps.js';
import { errorCode } from '../repository-files.js';

/** Takes one step and waits for the disk: for a thread that does nothing else. */
export function takeStep(step: FileStep): void {
  switch (step.do) {
    case 'write':
      write(step.path, { text: step.text, flags: 'w', sync: step.sync === true });
      return;
    case 'replace':
      replace(step.path, step.text);
      return;
    case 'sync':
      unless(step.ifThere === true ? absent : [], () => sync(step.path));
      return;
    case 'rename':
      renameSync(step.from, step.to);
      return;
    case 'link':
      unless(['EEXIST'], () => linkSync(step.from, step.to));
      return;
    case 'unlink':
      unless(absent, () => unlinkSync(step.path));
      return;
    case 'mkdir':
      mkdirSync(step.path, { mode: 0o700 });
      return;
    case 'rmdir':
      unless(absent, () => rmdirSync(step.path));
      return;
    case 'need-room': {
      const { bavail, bsize } = statfsSync(step.path);
      if (bavail * bsize < step.bytes) throw noRoom(step.path);
    }
  }
}

function write(
  path: string,
  { text, flags, sync }: { readonly text: string; readonly flags: string; readonly sync: boolean },
): void {
  const file = openSync(path, flags, 0o644);
  try {
    writeFileSync(file, text);
    if (sync) fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function replace(path: string, text: string): void {
  const temporary = `${path}.tmp-${randomBytes(8).toString('hex')}`;
  try {
    write(temporary, { text, flags: 'wx', sync: true });
    renameSync(temporary, path);
  } catch (error) {
    try {
      unlinkSync(temporary);
    } catch {
      // It was not made, or goes at the next start.
    }
    throw error;
  }
}

function sync(path: string): void {
  const file = openSync(path, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function unless(codes: readonly string[], change: () => void): void {
  try {
    change();
  } catch (error) {
    if (!codes.includes(errorCode(error))) throw error;
  }
}
