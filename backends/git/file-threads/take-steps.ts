import {
  closeSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statfsSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import {
  absent,
  assertAbsent,
  assertNames,
  assertText,
  type FileStep,
  maxTailBytes,
  noRoom,
} from '../file-steps.js';
import { errorCode } from '../repository-files.js';

/** Takes one step and waits for the disk: for a thread that does nothing else. */
export function takeStep(step: FileStep): void {
  switch (step.do) {
    case 'write':
      write(step.path, step.text, step.sync === true);
      return;
    case 'overwrite':
      overwrite(step.path, Buffer.from(step.text));
      return;
    case 'sync':
      unless(step.ifThere === true ? absent : [], () => syncPath(step.path));
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
    case 'expect-names':
      assertNames(step, readdirSync(step.path));
      return;
    case 'expect-text':
      assertText(step, readFileSync(step.path, 'utf8'));
      return;
    case 'expect-absent':
      assertAbsent(step.path, lstatSync(step.path, { throwIfNoEntry: false }));
      return;
    case 'need-room': {
      const { bavail, bsize } = statfsSync(step.path);
      if (bavail * bsize < step.bytes) throw noRoom(step.path);
    }
  }
}

function write(path: string, text: string, isSynced: boolean): void {
  const file = openSync(path, 'w', 0o644);
  try {
    writeFileSync(file, text);
    if (isSynced) fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function overwrite(path: string, bytes: Uint8Array): void {
  const file = openSync(path, 'r+');
  try {
    const { size } = fstatSync(file);
    for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at, bytes.length - at, at);
    if (size > bytes.length + maxTailBytes) ftruncateSync(file, bytes.length);
    fdatasyncSync(file);
  } finally {
    closeSync(file);
  }
}

function syncPath(path: string): void {
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
